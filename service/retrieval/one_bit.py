"""Search by a 1-bit tier: FAISS scans the codes, and the rows whose codes come close are scored exactly.

How many are scored is up to each query (see margins.py). A query that would need a large share of the rows
scored is answered by comparing all of them.
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval import flat
from service.retrieval.columns import Mask
from service.retrieval.index import Metric
from service.retrieval.margins import LEAST_TOP_K, bits_within, first_scored
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
# row and query, a scan 0.004 µs a row of all.
_FEW_SHARE = 0.04
# What the scan returns at least, and at most unless top_k asks for more: more than most queries need, since
# those that need more are scanned for once again.
_MIN_CANDIDATES, _MAX_CANDIDATES = 768, 8192
_MORE_THAN_USUAL = 1.3
# FAISS counts candidates in an array of candidates × (bits + 1) numbers of 8 bytes for each query. The
# allocator would take one of 32 MiB and more from the kernel anew each time.
_COUNTER_BYTES = 10 * 1024 * 1024
# Candidates beyond top_k that are scored in float64.
_SPARE = 4
_MAX_SCORED_SHARE = 0.25
_faiss: Any = faiss  # its stubs lack what is used here
# Of codes scanned for one query after another: a part that stays in the cache.
_faiss.cvar.hamming_batch_size = 16_384
_pointer = _faiss.swig_ptr


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
        segments, metric, queries, top_k, kept: see `flat.search`.
        recall: the wanted share, above 0 to 1; 1: everything is compared.
    """
    if tier is not None and recall < 1 and top_k <= MAX_TOP_K and len(queries):
        rows = Rows(segments, kept)
        few = max(_FEW_SHARE * int(rows.starts[-1]), _MIN_ROWS_PER_NEIGHBOR * top_k, _MIN_CANDIDATES)
        if rows.live > few:
            return _Search(tier, rows, metric, queries, top_k, tier.margins.z(recall)).run()
    return flat.search(segments, metric, queries, top_k, kept)


class _Search:
    def __init__(
        self, tier: Tier, rows: Rows, metric: Metric, queries: NDArray[np.float32], top_k: int, z: float
    ) -> None:
        self._tier, self._rows, self._metric, self._queries = tier, rows, metric, queries
        self._top_k, self._z = top_k, z
        self._codes = tier.coder.encode(queries)
        self._angles = Angles(tier.coder, metric, queries)
        self._exact: list[int] = []  # queries that are answered by comparing everything
        self._place()

    def _place(self) -> None:
        """Find out where the tier's rows are now, and which of them may be found."""
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
        self._selector: Any = None
        self._selectable = len(tier.codes)
        dead = any(segment.dead_count for segment in rows.segments)
        if rows.kept is not None or dead or sum(covered) < len(tier.codes):
            mask = np.zeros(len(tier.codes), np.bool_)
            for cover in tier.covers:
                number = numbers.get(id(cover.sequences))
                if number is not None:  # else the segment was rewritten
                    part = slice(0, covered[number])
                    mask[cover.start : cover.start + covered[number]] = self._findable(number, part)
            self._selectable = int(np.count_nonzero(mask))
            self._selector = _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
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

    def _findable(self, number: int, part: slice) -> Mask:
        if self._rows.kept is not None:
            return self._rows.kept[number][part]
        return ~self._rows.segments[number].dead[part]

    def run(self) -> list[list[Hit]]:
        faiss.omp_set_num_threads(1)
        differing, places = self._scan()
        first = np.sort(places[:, : first_scored(self._top_k)], axis=1)
        numbers, raw = self._with_others(*self._scored(first))
        more = self._more(first, raw, differing, places)
        if more.size:
            more_numbers, more_raw = self._scored(more)
            numbers, raw = np.hstack([numbers, more_numbers]), np.hstack([raw, more_raw])
        best = self._best(numbers, raw)
        scores = rescored(self._rows, self._metric, self._queries, best)
        order = np.lexsort((best, -scores), axis=-1)[:, : self._top_k]
        best, scores = np.take_along_axis(best, order, 1), np.take_along_axis(scores, order, 1)
        hits = list(map(self._rows.hits, best, scores))
        if self._exact:
            chosen = np.ascontiguousarray(self._queries[self._exact])
            rows = self._rows
            answers = flat.search(rows.segments, self._metric, chosen, self._top_k, rows.kept)
            for query, answer in zip(self._exact, answers, strict=True):
                hits[query] = answer
        return hits

    def _best(self, numbers: NDArray[np.int64], raw: NDArray[np.float32]) -> NDArray[np.int64]:
        """Those of the best raw scores, [queries, top_k and some]; of equal ones those written first."""
        wanted = self._top_k + _SPARE
        best = np.argpartition(-raw, wanted - 1, axis=1)[:, :wanted]
        least = np.take_along_axis(raw, best, 1).min(axis=1, keepdims=True)
        for query in np.flatnonzero(np.count_nonzero(raw >= least, axis=1) > wanted):  # rare
            best[query] = np.lexsort((numbers[query], -raw[query]))[:wanted]
        return np.take_along_axis(numbers, best, 1)

    def _scan(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Of each query the rows whose codes differ least, [queries, candidates]: in how many bits, rising,
        and their places in the tier.
        """
        queries, width = self._codes.shape
        usual = _MORE_THAN_USUAL * self._tier.margins.scored_share * len(self._tier.codes)
        most = max(_MIN_CANDIDATES, 4 * self._top_k, min(int(usual), _MAX_CANDIDATES))
        count = min(self._selectable, most)
        differing, places = np.empty((queries, count), np.int32), np.empty((queries, count), np.int64)
        at_once = max(1, _COUNTER_BYTES // (8 * (8 * width + 1) * max(1, count)))
        for start in range(0, queries if count else 0, at_once):
            part = slice(start, min(queries, start + at_once))
            _faiss.hammings_knn_mc(
                *map(_pointer, (self._codes[part], self._tier.codes.bits)),
                part.stop - start, len(self._tier.codes), count, width,
                *map(_pointer, (differing[part], places[part])), self._selector,
            )  # fmt: skip
        return differing, places

    def _scored(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers and raw scores of places in the tier, [queries, candidates]; -1 and -inf: none."""
        numbers = places
        if self._shifted:
            numbers = places + self._shifts[np.searchsorted(self._starts, places, "right") - 1]
            numbers[places < 0] = -1
        return numbers, raw_of(self._rows, self._metric, self._queries, numbers)

    def _with_others(
        self, numbers: NDArray[np.int64], raw: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same and the rows that the tier has no codes of."""
        if not len(self._others):
            return numbers, raw
        others = np.tile(self._others, (len(numbers), 1))
        other_raw = raw_of(self._rows, self._metric, self._queries, others)
        return np.hstack([numbers, others]), np.hstack([raw, other_raw])

    def _more(
        self,
        first: NDArray[np.int64],
        raw: NDArray[np.float32],
        differing: NDArray[np.int32],
        places: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Places to be scored after the first ones, [queries, candidates]; -1: none."""
        done, count = first.shape[1], places.shape[1]
        if done == self._selectable:
            return places[:, :0]
        within = self._within(first, raw)
        needed = np.count_nonzero(differing <= within[:, None], axis=1)
        more = places[:, done : max(done, int(needed.max()))]
        more = np.sort(np.where(np.arange(done, done + more.shape[1]) < needed[:, None], more, -1), axis=1)
        if count == self._selectable:
            return more
        # The scan returned too few for these.
        rest = {
            query: self._all_within(query, within[query])
            for query in np.flatnonzero(needed == count).tolist()
        }
        self._exact = [query for query, found in rest.items() if found is None]
        longest = max((len(found) for found in rest.values() if found is not None), default=0)
        if longest > more.shape[1]:
            more = np.pad(more, ((0, 0), (0, longest - more.shape[1])), constant_values=-1)
        for query, found in rest.items():
            if found is not None:
                unscored = np.setdiff1d(found, first[query], assume_unique=True)
                more[query, : len(unscored)] = unscored
                more[query, len(unscored) :] = -1
        return more

    def _within(self, first: NDArray[np.int64], raw: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [queries]: in how many bits the code of a row as near as the best found may differ."""
        known = raw[:, : first.shape[1]]
        last = raw.shape[1] - max(self._top_k, LEAST_TOP_K)
        least = np.partition(raw, last, axis=1)[:, last]
        near = known >= np.minimum(least, known.max(axis=1))[:, None]
        codes, (query, _), found = self._tier.codes, np.nonzero(near), first[near]
        angles = self._angles.of(query, known[near], codes.lengths[found], codes.projections[found])
        largest = np.zeros(len(first))
        np.maximum.at(largest, query, angles)
        return bits_within(largest, self._z, self._tier.coder.bit_count)

    def _all_within(self, query: int, bits: float) -> NDArray[np.int64] | None:
        """Places of all rows whose codes differ in at most so many bits; None: too many."""
        result = _faiss.RangeSearchResult(1)
        _faiss.hamming_range_search(
            *map(_pointer, (self._codes[query : query + 1], self._tier.codes.bits)),
            1, len(self._tier.codes), int(bits) + 1, self._codes.shape[1], result, self._selector,
        )  # fmt: skip
        count = int(_faiss.rev_swig_ptr(result.lims, 2)[1])
        if count > _MAX_SCORED_SHARE * self._selectable:
            return None
        return np.asarray(_faiss.rev_swig_ptr(result.labels, count).copy(), np.int64)
