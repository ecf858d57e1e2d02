"""Exact search by FAISS: every row is compared, and the answer is proved.

Two steps: FAISS finds a few more candidates than asked for in float32, and these are scored again (see
scores.py) and put in order; ties in the order of writing. The answer stands if no row outside the candidates
can belong to it, given how far rounding can be off; else (many rows as near as the last) every row is looked
at. Rows that a filter keeps are copied together first where they are few, as are those stored as float16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.columns import Mask
from service.retrieval.index import Metric
from service.retrieval.rounding import Rounding
from service.retrieval.rows import Hit, Rows
from service.retrieval.scores import nearest_of_all, rescored, scores_of

# Candidates beyond top_k.
_SPARE = 8
# From this many queries on FAISS is faster by matrix multiplication (BLAS) than row by row: measured at
# 16,384 × 512, one thread: 1.2 ms a query by rows, 2.9 ms + 0.1 ms a query by BLAS.
_BLAS_QUERIES = 3
# Of fewer queries, rows that a filter keeps are compared where they are, if it keeps this share of them at
# least; else they are copied together first. A copied row costs what comparing it with seven queries does.
_IN_PLACE_QUERIES = 7
_IN_PLACE_SHARE = 0.1
# Which way FAISS goes hangs on a process-wide threshold, whose meaning changed from queries (1.9) to
# queries × dimension (1.15). 1 means BLAS in both, and a selector of all rows means by rows.
faiss.cvar.distance_compute_blas_threshold = 1
_BY_ROWS: Any = faiss.IDSelectorAll()
# FAISS's stubs leave out the last arguments, which select rows, and the making of a selector from an array.
_Bitmap: Any = faiss.IDSelectorBitmap
_knn_inner_product: Any = faiss.knn_inner_product
_knn_l2_squared: Any = faiss.knn_L2sqr
# Of rows copied together: 4 MiB as float32, which stay in the cache; float16 takes half the time of 32 MiB.
_GATHER_VALUES = 1024 * 1024
_SCAN_VALUES = 1024 * 1024
# A finite "minus infinity", so that an error relative to it is a number.
_BELOW_ANY = -1e300


@dataclass(frozen=True)
class _Part:
    """Rows that FAISS compares in one call.

    Attributes:
        vectors: float32 [rows, dimension], C-contiguous.
        first: the number of the first row, where they follow one another.
        numbers: else int64 [rows]: each one's.
        live: how many of them may be found.
        mask: bool [rows], which those are; None: all.
        selects: whether FAISS is to leave out the others; else candidates make up for them.
    """

    vectors: NDArray[np.float32]
    first: int
    numbers: NDArray[np.int64] | None
    live: int
    mask: Mask | None
    selects: bool = False


@dataclass(frozen=True)
class _Candidates:
    """What FAISS found.

    Attributes:
        rows: int64 [queries, candidates]: row numbers counted through all segments.
        raw: float32, of the same shape: raw scores, falling; -inf: not to be found.
        unseen: float64 [queries]: no row outside has a greater raw score.
    """

    rows: NDArray[np.int64]
    raw: NDArray[np.float32]
    unseen: NDArray[np.float64]


def search(rows: Rows, metric: Metric, queries: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
    """The nearest live rows of each query, nearest first; of equally near ones those written first.

    Runs in the calling thread alone, without the interpreter lock where the work is.

    Args:
        rows: what to search.
        metric: of the collection.
        queries: float32 [queries, dimension], C-contiguous; of length 1 where the metric is the cosine.
        top_k: at least 1.

    Returns:
        For each query min(top_k, rows that may be found) hits.
    """
    if rows.live == 0 or len(queries) == 0:
        return [[] for _ in queries]
    return _Search(rows, metric, queries, min(top_k, rows.live)).run()


class _Search:
    """One search. Raw scores are FAISS's, see `rounding`."""

    def __init__(self, rows: Rows, metric: Metric, queries: NDArray[np.float32], top_k: int) -> None:
        self._rows, self._metric, self._queries, self._top_k = rows, metric, queries, top_k
        self._rounding = Rounding(metric, queries.shape[1])

    def run(self) -> list[list[Hit]]:
        rows, top_k = self._rows, self._top_k
        wanted = top_k + _SPARE
        if 2 * wanted >= rows.live:
            return rows.hits(*nearest_of_all(rows, self._metric, self._queries, top_k))
        found = self._candidates(wanted)
        error = self._rounding.error(found.unseen, self._queries, rows.largest_norm)
        # Candidates below these are further from the last of the answer than rounding is off for both: that
        # is twice; once more, as it is off further for longer distances.
        least = found.raw[:, top_k - 1] - 3 * error
        near = np.s_[:, : np.count_nonzero(found.raw >= least[:, None], axis=1).max()]
        numbers = found.rows[near]
        scores = rescored(rows, self._metric, self._queries, numbers)
        scores[np.isneginf(found.raw[near])] = -np.inf
        order = np.lexsort((numbers, -scores), axis=-1)[:, :top_k]
        lines = np.arange(len(order))[:, None]
        numbers, scores = numbers[lines, order], scores[lines, order]
        proved = self._rounding.measures(scores[:, -1]) > found.unseen + error
        answers = rows.hits(numbers, scores)
        for line in np.flatnonzero(~proved).tolist():
            answers[line] = self._scan(self._queries[line], float(scores[line, -1]))
        return answers

    def _candidates(self, wanted: int) -> _Candidates:
        raws, rows = [], []
        unseen = np.full(len(self._queries), _BELOW_ANY)
        for part in self._parts():
            findable = part.live if part.selects else len(part.vectors)
            dead = findable - part.live
            count = min(findable, wanted + min(dead, wanted))
            raw, found = self._nearest(part, count)
            if count < findable:
                np.maximum(unseen, raw[:, -1], out=unseen)
            if dead and part.mask is not None:
                raw[~part.mask[found]] = -np.inf
            raws.append(raw)
            rows.append(found + part.first if part.numbers is None else part.numbers[found])
        if len(raws) == 1 and not dead:  # in order already, and no more than wanted
            return _Candidates(rows[0], raws[0], unseen)
        raw = np.concatenate(raws, axis=1)
        order = np.argsort(-raw, axis=1)
        if order.shape[1] > wanted:
            np.maximum(unseen, np.take_along_axis(raw, order[:, wanted : wanted + 1], 1)[:, 0], out=unseen)
            order = order[:, :wanted]
        return _Candidates(
            np.take_along_axis(np.concatenate(rows, axis=1), order, 1),
            np.take_along_axis(raw, order, 1),
            unseen,
        )

    def _parts(self) -> Iterator[_Part]:
        rows = self._rows
        in_place = rows.segments[0].vectors.dtype == np.float32 and (
            rows.kept is None
            or (len(self._queries) < _IN_PLACE_QUERIES and rows.live >= _IN_PLACE_SHARE * rows.starts[-1])
        )
        if not in_place:
            size = max(1, _GATHER_VALUES // self._queries.shape[1])
            for start in range(0, rows.live, size):
                numbers = rows.numbers[start : start + size]
                yield _Part(rows.gather(numbers), 0, numbers, len(numbers), None)
        elif rows.kept is None:
            for first, segment in zip(rows.starts.tolist(), rows.segments, strict=False):
                yield _Part(
                    segment.vectors[: segment.used],
                    first,
                    None,
                    segment.live_count,
                    ~segment.dead[: segment.used] if segment.dead_count else None,
                )
        else:
            for first, segment, mask in zip(rows.starts.tolist(), rows.segments, rows.kept, strict=False):
                if live := int(np.count_nonzero(mask)):
                    yield _Part(segment.vectors[: segment.used], first, None, live, mask, selects=True)

    def _nearest(self, part: _Part, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        queries = self._queries
        raw, rows = (np.empty((len(queries), count), dtype) for dtype in (np.float32, np.int64))
        # OpenMP keeps this per calling thread; unset, each worker thread would start as many threads as
        # there are cores. FAISS's own BLAS is built on OpenMP and follows it.
        faiss.omp_set_num_threads(1)
        pointers = [faiss.swig_ptr(array) for array in (queries, part.vectors, raw, rows)]
        sizes = (queries.shape[1], len(queries), len(part.vectors), count)
        selector = _BY_ROWS
        if part.selects and part.mask is not None:
            selector = _Bitmap(np.packbits(part.mask, bitorder="little"))
        if self._metric is Metric.L2:
            # Never by BLAS: |x|² + |y|² − 2xy loses the digits of a small distance between long vectors.
            _knn_l2_squared(*pointers[:2], *sizes, *pointers[2:], None, selector)
            np.negative(raw, out=raw)
        else:
            by_rows = part.selects or len(queries) < _BLAS_QUERIES
            _knn_inner_product(*pointers[:2], *sizes, *pointers[2:], selector if by_rows else None)
        return raw, rows

    def _scan(self, query: NDArray[np.float32], floor: float) -> list[Hit]:
        """All rows in blocks, given that the last hit's score is at least `floor`."""
        numbers, scores = [], []
        size = max(1, _SCAN_VALUES // len(query))
        for start in range(0, self._rows.live, size):
            block = self._rows.numbers[start : start + size]
            vectors = self._rows.gather(block)
            plausible = np.flatnonzero(self._plausible(vectors, query, floor))
            if plausible.size:
                scores.append(scores_of(self._metric, vectors[plausible], query))
                numbers.append(block[plausible])
        every_number, every_score = np.concatenate(numbers), np.concatenate(scores)
        # Numbers rise: ties keep their order.
        order = np.argsort(-every_score, kind="stable")[: self._top_k]
        return self._rows.hits(every_number[None, order], every_score[None, order])[0]

    def _plausible(
        self, vectors: NDArray[np.float32], query: NDArray[np.float32], floor: float
    ) -> NDArray[np.bool_]:
        if self._metric is Metric.L2:
            difference = vectors - query
            raw = -np.einsum("rd,rd->r", difference, difference)
        else:
            raw = np.einsum("rd,d->r", vectors, query)
        least = self._rounding.measures(floor)
        return np.asarray(raw >= least - 2 * self._rounding.error(least, query, self._rows.largest_norm))
