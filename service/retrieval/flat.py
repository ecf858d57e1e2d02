"""Exact search by FAISS: every row is compared, and the answer is proved.

FAISS compares in float32, and its rounding depends on where a row stands; so alone it would give two equal
items different scores, and an order that changes when the index is reopened. Hence two steps: FAISS finds
a few more candidates than asked for, and these are scored again in float64, rounded to float32, and put in
order; ties in the order of writing. The answer stands if no row outside the candidates can belong to it,
given how far rounding can be off; else (many rows as near as the last) every row is looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.segments import Segment

# Candidates beyond top_k.
_SPARE = 8
# From this many queries on FAISS is faster by matrix multiplication (BLAS) than row by row: measured at
# 16,384 × 512, one thread: 1.2 ms a query by rows, 2.9 ms + 0.1 ms a query by BLAS.
_BLAS_QUERIES = 3
# Which way FAISS goes hangs on a process-wide threshold, whose meaning changed from queries (1.9) to
# queries × dimension (1.15). 1 means BLAS in both, and a selector of all rows means by rows.
faiss.cvar.distance_compute_blas_threshold = 1
_BY_ROWS = faiss.IDSelectorAll()
# FAISS's stubs leave out the last arguments, which select rows.
_knn_inner_product: Any = faiss.knn_inner_product
_knn_l2_squared: Any = faiss.knn_L2sqr
# Of vectors scored in float64 at once: 32 MiB.
_RESCORE_VALUES = 4 * 1024 * 1024
_SCAN_VALUES = 1024 * 1024
# A finite "minus infinity", so that an error relative to it is a number.
_BELOW_ANY = -1e300
_FLOAT32_EPSILON = 2.0**-24
_FLOAT32_TINY = 2.0**-126


class Hit(NamedTuple):  # made in half the time of a frozen dataclass, which counts here
    """A row that was found.

    Attributes:
        segment: where.
        row: in the segment.
        score: by the metric; a float32 value.
    """

    segment: Segment
    row: int
    score: float


@dataclass(frozen=True)
class _Candidates:
    """What FAISS found.

    Attributes:
        rows: int64 [queries, candidates]: row numbers counted through all segments.
        live: bool, of the same shape.
        unseen: float64 [queries]: no row outside has a greater raw score.
    """

    rows: NDArray[np.int64]
    live: NDArray[np.bool_]
    unseen: NDArray[np.float64]


def search(
    segments: Sequence[Segment], metric: Metric, queries: NDArray[np.float32], top_k: int
) -> list[list[Hit]]:
    """The nearest live rows of each query, nearest first; of equally near ones those written first.

    Runs in the calling thread alone, without the interpreter lock where the work is.

    Args:
        segments: what to search.
        metric: of the collection.
        queries: float32 [queries, dimension], C-contiguous; of length 1 where the metric is the cosine.
        top_k: at least 1.

    Returns:
        For each query min(top_k, live rows) hits.
    """
    live = sum(segment.live_count for segment in segments)
    if live == 0 or len(queries) == 0:
        return [[] for _ in queries]
    return _Search(segments, metric, queries, min(top_k, live), live).run()


class _Search:
    """One search. Raw scores are FAISS's: the inner product, or minus the squared distance."""

    def __init__(
        self,
        segments: Sequence[Segment],
        metric: Metric,
        queries: NDArray[np.float32],
        top_k: int,
        live: int,
    ) -> None:
        self._segments, self._metric, self._queries = segments, metric, queries
        self._top_k, self._live = top_k, live
        self._starts = np.cumsum([0, *(segment.used for segment in segments)])
        dimension = queries.shape[1]
        # A float32 sum of d products is off by at most d·u of the sum of their magnitudes, in whatever
        # order it is taken (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1);
        # the rest is for the differences, the root and the rounding of scores.
        self._relative_error = (dimension + 8) * _FLOAT32_EPSILON
        # Products below the normal range may be flushed to zero.
        self._absolute_error = 2 * dimension * _FLOAT32_TINY

    def run(self) -> list[list[Hit]]:
        wanted = self._top_k + _SPARE
        if 2 * wanted >= self._live:
            return [self._scan(query, -np.inf) for query in self._queries]
        found = self._candidates(wanted)
        scores = np.where(found.live, self._rescore(found.rows), -np.inf)
        order = np.lexsort((found.rows, -scores), axis=-1)[:, : self._top_k]
        rows, scores = np.take_along_axis(found.rows, order, 1), np.take_along_axis(scores, order, 1)
        proved = self._raw(scores[:, -1]) > found.unseen + self._error(self._queries, found.unseen)
        return [
            self._hits(rows[number], scores[number])
            if proved[number]
            else self._scan(query, float(scores[number, -1]))
            for number, query in enumerate(self._queries)
        ]

    def _candidates(self, wanted: int) -> _Candidates:
        raws, rows, lives = [], [], []
        unseen = np.full(len(self._queries), _BELOW_ANY)
        for start, segment in zip(self._starts, self._segments, strict=False):
            count = min(segment.used, wanted + min(segment.dead_count, wanted))
            raw, found = self._nearest(segment, count)
            if count < segment.used:
                np.maximum(unseen, raw[:, -1], out=unseen)
            raws.append(raw)
            rows.append(found + start)
            lives.append(~segment.dead[found])
        live = np.concatenate(lives, axis=1)
        raw = np.where(live, np.concatenate(raws, axis=1), -np.inf)
        order = np.argsort(-raw, axis=1)
        if order.shape[1] > wanted:
            np.maximum(unseen, np.take_along_axis(raw, order[:, wanted : wanted + 1], 1)[:, 0], out=unseen)
            order = order[:, :wanted]
        return _Candidates(
            np.take_along_axis(np.concatenate(rows, axis=1), order, 1),
            np.take_along_axis(live, order, 1),
            unseen,
        )

    def _nearest(self, segment: Segment, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        queries, vectors = self._queries, segment.vectors
        raw, rows = (np.empty((len(queries), count), dtype) for dtype in (np.float32, np.int64))
        # OpenMP keeps this per calling thread; unset, each worker thread would start as many threads as
        # there are cores. FAISS's own BLAS is built on OpenMP and follows it.
        faiss.omp_set_num_threads(1)
        pointers = [faiss.swig_ptr(array) for array in (queries, vectors, raw, rows)]
        sizes = (queries.shape[1], len(queries), segment.used, count)
        if self._metric is Metric.L2:
            # Never by BLAS: |x|² + |y|² − 2xy loses the digits of a small distance between long vectors.
            _knn_l2_squared(*pointers[:2], *sizes, *pointers[2:], None, _BY_ROWS)
            np.negative(raw, out=raw)
        else:
            selector = _BY_ROWS if len(queries) < _BLAS_QUERIES else None
            _knn_inner_product(*pointers[:2], *sizes, *pointers[2:], selector)
        return raw, rows

    def _error(self, queries: NDArray[np.float32], raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far raw scores about `raw`, of queries [..., dimension], may be off."""
        if self._metric is Metric.L2:
            return np.asarray(self._relative_error * np.abs(raw) + self._absolute_error)
        longest = max(segment.largest_norm for segment in self._segments)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=-1)
        return np.asarray(self._relative_error * longest * lengths + self._absolute_error)

    def _raw(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        wide = np.asarray(scores, np.float64)
        return np.asarray(-np.square(wide)) if self._metric is Metric.L2 else wide

    def _score(self, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of vectors [..., rows, dimension] for queries [..., dimension]."""
        wide, others = vectors.astype(np.float64), queries.astype(np.float64)
        if self._metric is Metric.L2:
            wide -= others[..., None, :]
            distances = np.sqrt(np.einsum("...rd,...rd->...r", wide, wide))
            return np.asarray(-distances, np.float32)
        products = np.einsum("...rd,...d->...r", wide, others)
        if self._metric is Metric.COSINE:
            np.clip(products, -1, 1, out=products)  # vectors of length 1 ± rounding
        return np.asarray(products, np.float32)

    def _rescore(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of rows [queries, candidates], a bounded number at once."""
        queries, candidates = rows.shape
        dimension = self._queries.shape[1]
        scores = np.empty(rows.shape, np.float32)
        columns = max(1, min(candidates, _RESCORE_VALUES // dimension))
        lines = max(1, _RESCORE_VALUES // (dimension * columns))
        for line in range(0, queries, lines):
            for column in range(0, candidates, columns):
                part = np.s_[line : line + lines, column : column + columns]
                scores[part] = self._score(self._gather(rows[part]), self._queries[line : line + lines])
        return scores

    def _gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(self._segments) == 1:
            return self._segments[0].vectors[rows]
        vectors = np.empty((*rows.shape, self._queries.shape[1]), np.float32)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            here = numbers == number
            vectors[here] = self._segments[number].vectors[rows[here] - self._starts[number]]
        return vectors

    def _scan(self, query: NDArray[np.float32], floor: float) -> list[Hit]:
        """All rows in blocks, given that the last hit's score is at least `floor`."""
        rows, scores = [], []
        for first, segment, block in self._blocks():
            keep = ~segment.dead[block]
            vectors = segment.vectors[block]
            if floor > -np.inf:
                keep &= self._plausible(vectors, query, floor)
            kept = np.flatnonzero(keep)
            if kept.size:
                score = self._score(vectors if kept.size == len(vectors) else vectors[kept], query)
                scores.append(score)
                rows.append(kept + first)
        every_row, every_score = np.concatenate(rows), np.concatenate(scores)
        order = np.argsort(-every_score, kind="stable")[: self._top_k]  # rows rise: ties keep their order
        return self._hits(every_row[order], every_score[order])

    def _plausible(
        self, vectors: NDArray[np.float32], query: NDArray[np.float32], floor: float
    ) -> NDArray[np.bool_]:
        if self._metric is Metric.L2:
            difference = vectors - query
            raw = -np.einsum("rd,rd->r", difference, difference)
        else:
            raw = np.einsum("rd,d->r", vectors, query)
        least = self._raw(np.asarray(floor))
        return np.asarray(raw >= least - 2 * self._error(query, least))

    def _blocks(self) -> Iterator[tuple[int, Segment, slice]]:
        size = max(1, _SCAN_VALUES // self._queries.shape[1])
        for start, segment in zip(self._starts, self._segments, strict=False):
            for row in range(0, segment.used, size):
                yield int(start) + row, segment, slice(row, min(segment.used, row + size))

    def _hits(self, rows: NDArray[np.int64], scores: NDArray[Any]) -> list[Hit]:
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        places = rows - self._starts[numbers]
        return [
            Hit(self._segments[number], row, score)
            for number, row, score in zip(numbers.tolist(), places.tolist(), scores.tolist(), strict=True)
        ]
