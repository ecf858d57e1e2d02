"""Raw scores in float32, straight from where the rows lie: inner products, or minus squared distances."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.rows import Rows

_faiss: Any = faiss  # its stubs lack what is used here
_pointer = _faiss.swig_ptr
# Of rows of float16 made float32 at once: 2 MiB, which stays in the cache.
_BLOCK_VALUES = 512 * 1024


def raw_of(
    rows: Rows, metric: Metric, queries: NDArray[np.float32], numbers: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Raw scores float32 [queries, candidates]; -inf where there is none.

    Runs in the calling thread alone, without the interpreter lock where the work is.

    Args:
        rows: where the candidates are.
        metric: of the collection.
        queries: float32 [queries, dimension], C-contiguous.
        numbers: int64 [queries, candidates]: row numbers; -1: none. Quickest where they rise.
    """
    faiss.omp_set_num_threads(1)
    raw = np.full(numbers.size, -np.inf, np.float32)
    pairs = numbers.ravel()
    starts = rows.starts.tolist()
    for segment, start, stop in zip(rows.segments, starts[:-1], starts[1:], strict=True):
        here = np.flatnonzero((pairs >= start) & (pairs < stop))
        if len(here):
            owners = here // numbers.shape[1]
            raw[here] = _of_pairs(metric, queries, owners, segment.vectors, pairs[here] - start)
    return raw.reshape(numbers.shape)


def _of_pairs(
    metric: Metric,
    queries: NDArray[np.float32],
    owners: NDArray[np.int64],
    vectors: NDArray[Any],
    places: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Of each pair of a query and a vector, by their numbers."""
    raw = np.empty(len(places), np.float32)
    l2 = metric is Metric.L2
    compute = _faiss.pairwise_indexed_L2sqr if l2 else _faiss.pairwise_indexed_inner_product
    in_place = vectors.dtype == np.float32
    size = len(places) if in_place else max(1, _BLOCK_VALUES // queries.shape[1])
    for start in range(0, len(places), size):
        part = slice(start, start + size)
        block = vectors if in_place else _decoded(vectors[places[part]])
        chosen = places[part] if in_place else np.arange(len(block))
        pointers = map(_pointer, (queries, owners[part], block, chosen, raw[part]))
        compute(queries.shape[1], len(chosen), *pointers)
    return -raw if l2 else raw


def _decoded(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """As float32 [rows, dimension], by FAISS: it uses the processor's own conversion, which numpy doesn't."""
    quantizer = _faiss.ScalarQuantizer(halves.shape[1], _faiss.ScalarQuantizer.QT_fp16)
    decoded: NDArray[np.float32] = quantizer.decode(halves.view(np.uint8))
    return decoded
