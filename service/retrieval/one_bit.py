"""Search by a 1-bit tier: FAISS scans the codes, and the rows whose codes come close are scored exactly.

How many are scored is up to each query (see margins.py). A query that would need a large share of the rows
scored is answered by comparing all of them.
"""

import math
from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval import flat
from service.retrieval.code_scan import CodeScan
from service.retrieval.columns import Mask
from service.retrieval.index import Metric
from service.retrieval.margins import LEAST_TOP_K, bits_within, first_scored, head_bits_within
from service.retrieval.raw import raw_of
from service.retrieval.rows import Hit, Rows
from service.retrieval.scores import rescored
from service.retrieval.segments import Segment
from service.retrieval.signs import Angles
from service.retrieval.tier import Tier

# More neighbours than this are found by comparing everything, and so are a fair share of all.
MAX_TOP_K = 4096
_MIN_ROWS_PER_NEIGHBOR = 8
# Fewer rows than this share are compared one by one: measured at 100k × 512, one core, that takes 0.1 µs a
# row and query, a scan 0.001 to 0.003 µs a row of all and some hundreds of rows scored.
_FEW_SHARE = 0.04
_FEW_ROWS = 768
# Of the sample so many are scored at least, to guess at how near the nearest of all are.
_LEAST_SAMPLED = 64
# After the first candidates so many times as many are scored at most, and then how near the nearest are is
# known better.
_GROWTH = 8
# Each of them may have a fair share of all rows as candidates, at some ten bytes.
_QUERIES_AT_ONCE = 16
# Candidates beyond top_k that are scored in float64.
_SPARE = 4
# Where more come close, everything is compared.
_MAX_SCORED_SHARE = 0.25
# Likewise where the tier lacks more of the rows, as in a rush of writes: these are scored for each query,
# which takes three times as long for sixteen, and memory for each pair.
_MAX_UNCOVERED_SHARE = 1 / 8


def search(
    tier: Tier | None,
    segments: Sequence[Segment],
    metric: Metric,
    queries: NDArray[np.float32],
    top_k: int,
    kept: Sequence[Mask] | None = None,
    recall: float = 1.0,
) -> list[list[Hit]]:
    """As `flat.search`, but of the nearest rows perhaps only the wanted share.

    Args:
        tier: of the collection; None: everything is compared.
        segments: of the collection.
        metric, queries, top_k: see `flat.search`.
        kept: the rows that may be found (see `masks.kept_by`); None: all that live.
        recall: the wanted share, above 0 to 1; 1: everything is compared.
    """
    rows = Rows(segments, kept)
    if tier is not None and recall < 1 and top_k <= MAX_TOP_K and len(queries):
        few = max(_FEW_SHARE * int(rows.starts[-1]), _MIN_ROWS_PER_NEIGHBOR * top_k, _FEW_ROWS)
        if rows.live > few and tier.uncovered(segments) <= _MAX_UNCOVERED_SHARE * rows.live:
            return _Search(tier, rows, metric, queries, top_k, tier.margins.z(recall)).run()
    return flat.search(rows, metric, queries, top_k)


class _Search:
    def __init__(
        self, tier: Tier, rows: Rows, metric: Metric, queries: NDArray[np.float32], top_k: int, z: float
    ) -> None:
        self._tier, self._rows, self._metric, self._queries = tier, rows, metric, queries
        self._top_k, self._z = top_k, z
        # How near the nearest few are says too little about the others.
        self._ranked = max(top_k, LEAST_TOP_K)
        self._angles = Angles(tier.coder, metric, queries)
        findable = self._place()
        self._most = int(_MAX_SCORED_SHARE * (len(tier.codes) if findable is None else findable.sum()))
        self._scan = CodeScan(tier, tier.coder.encode(queries), findable)
        self._hits: list[list[Hit]] = [[] for _ in queries]

    def _place(self) -> Mask | None:
        """Find out where the tier's rows are now, and which of them may be found; None: all."""
        rows, tier = self._rows, self._tier
        numbers = {id(segment.sequences): number for number, segment in enumerate(rows.segments)}
        covered = [0] * len(rows.segments)
        # Of each cover: what to add to a place in the tier for the row's number.
        self._shifts = np.zeros(len(tier.covers), np.int64)
        self._starts = np.array([cover.start for cover in tier.covers])
        for index, cover in enumerate(tier.covers):
            number = numbers.get(id(cover.sequences))
            if number is not None:
                self._shifts[index] = rows.starts[number] - cover.start
                # Fewer for a search that began before the tier took over.
                covered[number] = min(cover.count, rows.segments[number].used)
        self._shifted = bool(self._shifts.any())
        self._others = np.concatenate(
            [
                rows.starts[number]
                + first
                + np.flatnonzero(self._findable(number, slice(first, segment.used)))
                for number, (segment, first) in enumerate(zip(rows.segments, covered, strict=True))
                if first < segment.used
            ]
            or [np.empty(0, np.int64)]
        )
        dead = any(segment.dead_count for segment in rows.segments)
        if rows.kept is None and not dead and sum(covered) == len(tier.codes):
            return None
        mask = np.zeros(len(tier.codes), np.bool_)
        for cover in tier.covers:
            number = numbers.get(id(cover.sequences))
            if number is not None:  # else the segment was rewritten
                part = slice(0, covered[number])
                mask[cover.start : cover.start + covered[number]] = self._findable(number, part)
        return mask

    def _findable(self, number: int, part: slice) -> Mask:
        if self._rows.kept is not None:
            return self._rows.kept[number][part]
        return ~self._rows.segments[number].dead[part]

    def run(self) -> list[list[Hit]]:
        faiss.omp_set_num_threads(1)
        exact: list[int] = []
        for start in range(0, len(self._queries), _QUERIES_AT_ONCE):
            queries = np.arange(start, min(start + _QUERIES_AT_ONCE, len(self._queries)))
            left, angles, many = self._answer(queries, self._guessed(queries))
            exact += many
            if len(left):  # whose guess was too low; now so many rows are known to be as near
                exact += self._answer(left, angles)[2]
        if exact:
            chosen, rows = np.ascontiguousarray(self._queries[exact]), self._rows
            answers = flat.search(rows, self._metric, chosen, self._top_k)
            for query, answer in zip(exact, answers, strict=True):
                self._hits[query] = answer
        return self._hits

    def _guessed(self, queries: NDArray[np.int64]) -> NDArray[np.float64]:
        """At what angle the last of the nearest is, perhaps, [queries]: as shares of π."""
        step = self._tier.sample_step
        expected = self._ranked / step
        rank = min(self._ranked, math.ceil(expected + 2 * math.sqrt(expected)) + 1)
        places = np.sort(self._scan.sampled(queries, max(_LEAST_SAMPLED, 4 * rank)), axis=1)
        if not places.shape[1]:
            return np.ones(len(places))
        _, raw = self._scored(queries, places)
        return self._farthest(queries, places, raw, raw, min(rank, places.shape[1]))

    def _answer(
        self, queries: NDArray[np.int64], angles: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], list[int]]:
        """Find the hits of these queries, given the angles within which to look.

        Returns:
            Queries for which that was too narrow, within which angles the rows lie that are known to be near,
            and queries for which everything is to be compared.
        """
        bit_count, head_bits = self._tier.coder.bit_count, self._tier.codes.head_bits
        limits = bits_within(angles, self._z, bit_count)
        head_limits = head_bits_within(angles, self._z, head_bits)
        near = self._scan.within(queries, head_limits, limits, self._most)
        enough = (near.places >= 0).sum(axis=1) + len(self._others) >= self._top_k
        enough &= near.complete
        exact = queries[~enough].tolist()
        queries, angles = queries[enough], angles[enough]
        if not len(queries):
            return queries, angles, exact
        numbers, raw, farthest = self._scored_in_steps(
            queries, near.places[enough], near.differing[enough], angles
        )
        wide = farthest <= angles
        for query, line in zip(queries.tolist(), self._best_hits(queries, numbers, raw), strict=True):
            self._hits[query] = line
        return queries[~wide], farthest[~wide], exact

    def _scored_in_steps(
        self,
        queries: NDArray[np.int64],
        places: NDArray[np.int64],
        differing: NDArray[np.int16],
        angles: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        """Score the candidates, those whose codes differ least first, until the others are too far off.

        Args:
            queries: their numbers.
            places: of each one's candidates in the tier, [queries, candidates]; -1: none.
            differing: in how many bits, rising.
            angles: within which the candidates were looked for, [queries].

        Returns:
            Row numbers and raw scores [queries, scored], and the angle of the last of the nearest [queries]:
            where all are within `angles`, perhaps as it was before the last were scored.
        """
        done = min(first_scored(self._top_k), places.shape[1])
        part = np.sort(places[:, :done], axis=1)
        numbers, raw = self._scored(queries, part)
        scored, known = part, raw
        if len(self._others):
            others = np.tile(self._others, (len(queries), 1))
            raw = np.hstack([raw, raw_of(self._rows, self._metric, self._queries[queries], others)])
            numbers = np.hstack([numbers, others])
        while True:
            farthest = self._farthest(queries, scored, known, raw, self._ranked)
            least = bits_within(farthest, self._z, self._tier.coder.bit_count)
            needed = ((differing <= least[:, None]) & (places >= 0)).sum(axis=1)
            most = int(needed.max(initial=0))
            size = min(most, _GROWTH * done)
            if size <= done:
                return numbers, raw, farthest
            wanted = np.arange(done, size) < needed[:, None]
            part = np.sort(np.where(wanted, places[:, done:size], -1), axis=1)
            more_numbers, more_raw = self._scored(queries, part)
            numbers, raw = np.hstack([numbers, more_numbers]), np.hstack([raw, more_raw])
            if size == most and np.all(farthest <= angles):
                return numbers, raw, farthest
            scored, known = np.hstack([scored, part]), np.hstack([known, more_raw])
            done = size

    def _scored(
        self, queries: NDArray[np.int64], places: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers and raw scores of places in the tier, [queries, candidates]; -1 and -inf: none."""
        numbers = places
        if self._shifted:
            numbers = places + self._shifts[np.searchsorted(self._starts, places, "right") - 1]
            numbers[places < 0] = -1
        return numbers, raw_of(self._rows, self._metric, self._queries[queries], numbers)

    def _farthest(
        self,
        queries: NDArray[np.int64],
        places: NDArray[np.int64],
        known: NDArray[np.float32],
        raw: NDArray[np.float32],
        rank: int,
    ) -> NDArray[np.float64]:
        """The largest angle of the rows of the tier that score as well as the rank-th best, [queries].

        By distance rows of other lengths, which aren't scored yet, may be as near at wider angles: it is the
        largest that any could have.

        Args:
            queries: their numbers.
            places: scored rows of the tier, [queries, rows].
            known: their raw scores.
            raw: of these and others.
            rank: from 1.
        """
        last = max(0, raw.shape[1] - rank)
        least = np.partition(raw, last, axis=1)[:, last]
        least = np.minimum(least, known.max(axis=1, initial=-np.inf))
        if self._metric is Metric.L2:
            return self._angles.widest(queries, least, self._tier.lengths)
        near = (known >= least[:, None]) & (places >= 0)
        codes, (line, _), found = self._tier.codes, np.nonzero(near), places[near]
        angles = self._angles.of(queries[line], known[near], codes.lengths[found], codes.projections[found])
        largest = np.zeros(len(queries))
        np.maximum.at(largest, line, angles)
        return largest

    def _best_hits(
        self, queries: NDArray[np.int64], numbers: NDArray[np.int64], raw: NDArray[np.float32]
    ) -> list[list[Hit]]:
        best = self._best(numbers, raw)
        none = best < 0  # fewer were scored than are spare
        best[none] = 0
        scores = rescored(self._rows, self._metric, self._queries[queries], best)
        scores[none] = -np.inf
        order = np.lexsort((best, -scores), axis=-1)[:, : self._top_k]
        lines = np.arange(len(order))[:, None]
        return self._rows.hits(best[lines, order], scores[lines, order])

    def _best(self, numbers: NDArray[np.int64], raw: NDArray[np.float32]) -> NDArray[np.int64]:
        """Those of the best raw scores, [queries, top_k and some]; of equal ones those written first."""
        wanted = min(self._top_k + _SPARE, raw.shape[1])
        best = (-raw).argpartition(wanted - 1, axis=1)[:, :wanted]
        lines = np.arange(len(best))[:, None]
        least = raw[lines, best].min(axis=1, keepdims=True)
        for query in np.flatnonzero((raw >= least).sum(axis=1) > wanted):  # rare
            best[query] = np.lexsort((numbers[query], -raw[query]))[:wanted]
        return numbers[lines, best]
