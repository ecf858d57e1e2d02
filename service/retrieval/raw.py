"""Raw scores in float32, straight from where the rows lie: inner products, or minus squared distances."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.rows import Rows

# FAISS's stubs know neither.
_inner_products: Any = faiss.fvec_inner_products_by_idx
_squared_distances: Any = faiss.fvec_L2sqr_by_idx
_pointer: Any = faiss.swig_ptr
# Of rows of float16 made float32 at once: 2 MiB, which stays in the cache.
_BLOCK_VALUES = 512 * 1024


def raw_of(
    rows: Rows, metric: Metric, query: NDArray[np.float32], numbers: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Raw scores float32 [numbers] of some rows for one query; no interpreter lock where the work is.

    Args:
        rows: where they are.
        metric: of the collection.
        query: float32 [dimension], contiguous.
        numbers: int64 [numbers], rising.
    """
    raw = np.empty(len(numbers), np.float32)
    cuts = np.searchsorted(numbers, rows.starts)
    for place in np.flatnonzero(cuts[1:] > cuts[:-1]).tolist():
        part = slice(cuts[place], cuts[place + 1])
        _fill(raw[part], metric, query, rows.segments[place].vectors, numbers[part] - rows.starts[place])
    if metric is Metric.L2:
        np.negative(raw, out=raw)
    return raw


def _fill(
    raw: NDArray[np.float32],
    metric: Metric,
    query: NDArray[np.float32],
    vectors: NDArray[Any],
    places: NDArray[np.int64],
) -> None:
    compute = _squared_distances if metric is Metric.L2 else _inner_products
    if vectors.dtype == np.float32:
        pointers = map(_pointer, (raw, query, vectors, places))
        compute(*pointers, len(query), 1, len(places))
        return
    size = max(1, _BLOCK_VALUES // len(query))
    for start in range(0, len(places), size):
        part = slice(start, start + size)
        block = vectors[places[part]].astype(np.float32)
        near = np.arange(len(block))
        compute(*map(_pointer, (raw[part], query, block, near)), len(query), 1, len(block))
