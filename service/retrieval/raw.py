"""Raw scores in float32, straight from where the rows lie: inner products, or minus squared distances."""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.rows import Rows

_faiss: Any = faiss  # its stubs lack what is used here
_pointer = _faiss.swig_ptr
# Of rows of float16 made float32 at once: half a MiB, which stays in the cache.
_BLOCK_VALUES = 128 * 1024
# Of the bits of a float16 that were made an int32 and moved to where a float32 has its sign and its exponent:
# those that are its own, and what makes up for the exponents' other offset.
_SHIFT, _OWN_BITS, _SCALE = 13, np.int32(-0x7000_2000), np.float32(2.0**112)


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
    l2 = metric is Metric.L2
    places, vectors = rows.reach(numbers), rows.memory
    raw = np.full(numbers.shape, -np.inf, np.float32)
    if vectors.dtype == np.float32:
        compute = _faiss.fvec_L2sqr_by_idx if l2 else _faiss.fvec_inner_products_by_idx
        compute(*map(_pointer, (raw, queries, vectors, places)), queries.shape[1], *numbers.shape)
    else:
        compute = _faiss.pairwise_indexed_L2sqr if l2 else _faiss.pairwise_indexed_inner_product
        pairs = np.flatnonzero(places >= 0)
        owners, scores = pairs // numbers.shape[1], np.empty(len(pairs), np.float32)
        for part, wide in _widened(vectors, places.ravel()[pairs]):
            own = np.arange(len(wide))  # a pointer to it doesn't keep it
            pointers = map(_pointer, (queries, owners[part], wide, own, scores[part]))
            compute(queries.shape[1], len(wide), *pointers)
        raw.ravel()[pairs] = scores
    if l2:
        np.negative(raw, out=raw)
        raw[places < 0] = -np.inf
    return raw


def _widened(
    vectors: NDArray[np.float16], places: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Those of float16 vectors as float32, some at a time."""
    dimension = vectors.shape[1]
    size = max(1, min(len(places), _BLOCK_VALUES // dimension))
    bits = np.empty((size, dimension), np.int32)
    for start in range(0, len(places), size):
        stop = min(start + size, len(places))
        part = slice(0, stop - start)
        yield slice(start, stop), _float32(vectors.take(places[start:stop], axis=0), bits[part])


def _float32(halves: NDArray[np.float16], bits: NDArray[np.int32]) -> NDArray[np.float32]:
    """Finite numbers as float32, in the memory of `bits`; in a third of the time of numpy's and FAISS's."""
    np.copyto(bits, halves.view(np.int16))  # keeps the sign
    np.left_shift(bits, _SHIFT, out=bits)
    np.bitwise_and(bits, _OWN_BITS, out=bits)
    values = bits.view(np.float32)
    return np.multiply(values, _SCALE, out=values)
