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
    compute = _faiss.pairwise_indexed_L2sqr if l2 else _faiss.pairwise_indexed_inner_product
    raw = np.full(numbers.size, -np.inf, np.float32)
    pairs = numbers.ravel()
    order, bounds = rows.by_segment(pairs)
    in_place = rows.segments[0].vectors.dtype == np.float32
    for here, vectors, chosen in (_in_place if in_place else _decoded)(rows, pairs, order, bounds):
        owners, scores = here // numbers.shape[1], np.empty(len(here), np.float32)
        pointers = map(_pointer, (queries, owners, vectors, chosen, scores))
        compute(queries.shape[1], len(here), *pointers)
        raw[here] = -scores if l2 else scores
    return raw.reshape(numbers.shape)


_Parts = Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]]
"""Pairs, by their places; vectors; which of these each pair is of."""


def _in_place(
    rows: Rows, pairs: NDArray[np.int64], order: NDArray[np.int64], bounds: NDArray[np.int64]
) -> _Parts:
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        here = order[bounds[number] : bounds[number + 1]]
        yield here, rows.segments[number].vectors, pairs[here] - rows.starts[number]


def _decoded(
    rows: Rows, pairs: NDArray[np.int64], order: NDArray[np.int64], bounds: NDArray[np.int64]
) -> _Parts:
    """Rows of all segments together, some at a time."""
    dimension = rows.segments[0].vectors.shape[1]
    count = int(bounds[-1])
    size = max(1, min(count, _BLOCK_VALUES // dimension))
    halves, bits = np.empty((size, dimension), np.float16), np.empty((size, dimension), np.int32)
    numbers = np.arange(size)
    ends = bounds.tolist()
    number = 0
    for start in range(0, count, size):
        stop = min(start + size, count)
        done = start
        while done < stop:
            while ends[number + 1] <= done:
                number += 1
            until = min(ends[number + 1], stop)
            places = pairs[order[done:until]] - rows.starts[number]
            into = halves[done - start : until - start]
            rows.segments[number].vectors.take(places, axis=0, out=into, mode="clip")
            done = until
        part = slice(0, stop - start)
        yield order[start:stop], _float32(halves[part], bits[part]), numbers[part]


def _float32(halves: NDArray[np.float16], bits: NDArray[np.int32]) -> NDArray[np.float32]:
    """Finite numbers as float32, in the memory of `bits`; in a third of the time of numpy's and FAISS's."""
    np.copyto(bits, halves.view(np.int16))  # keeps the sign
    np.left_shift(bits, _SHIFT, out=bits)
    np.bitwise_and(bits, _OWN_BITS, out=bits)
    values = bits.view(np.float32)
    return np.multiply(values, _SCALE, out=values)
