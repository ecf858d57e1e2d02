"""The 1-bit tier of a collection: codes of its rows in one piece, so that FAISS scans them in one call.

A tier never changes; one for the rows that came since is made beside it, in the background, and takes over by
one assignment. Until then those few rows are compared exactly. Codes are known by the sequence numbers of
their rows, so they are taken over from the tier before, or from a file, wherever the rows have moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.margins import MIN_ROWS, Margins, measured
from service.retrieval.own_pages import joined
from service.retrieval.rows import Rows
from service.retrieval.segments import Segment
from service.retrieval.signs import Codes, SignCoder
from service.retrieval.stopping import Stop, Stopped, never

# Longer vectors are compared exactly always: the directions alone would take 16 MiB and more.
MAX_DIMENSION = 4096
# Beyond this share of all rows scored exactly the scan before it isn't worth while: measured at 30k × 128 and
# × 512, one core. At 0.16 comparing everything is twice as quick for one query and five times for sixteen,
# at 0.05 about as quick for sixteen. Vectors of float16 gain up to 0.1.
_MAX_SCORED_SHARE = 1 / 8
# The mean holds until the collection has grown this much, and the margins until of its rows this share came
# since: they may be unlike those that were there.
_GROWTH = 4
_UNMEASURED_SHARE = 1 / 4
_SAMPLE_ROWS = 2048
_ROWS_AT_ONCE = 1024
# Rows of the sample that a search begins with, at least; of many rows one in so many.
_SAMPLED_ROWS, _MOST_SAMPLE_STEP = 8192, 16


@dataclass(frozen=True)
class Cover:
    """The first rows of a segment that a tier has codes of.

    Attributes:
        sequences: the segment's array, by which it is known again.
        start: the first row's place in the tier.
        count: how many.
    """

    sequences: NDArray[np.int64]
    start: int
    count: int


@dataclass(frozen=True)
class Tier:
    """Codes of rows, and what is known about them.

    Attributes:
        coder: made them.
        margins: measured with it.
        trained_count: of how many rows the coder was made.
        measured_until: the last row's sequence number when the margins were measured.
        codes: of all rows.
        sequences: int64 [rows]: theirs.
        covers: where the rows are.
    """

    coder: SignCoder
    margins: Margins
    trained_count: int
    measured_until: int
    codes: Codes
    sequences: NDArray[np.int64]
    covers: tuple[Cover, ...]

    @property
    def sample_step(self) -> int:
        """One row of so many is in `sample`."""
        return max(1, min(_MOST_SAMPLE_STEP, len(self.codes) // _SAMPLED_ROWS))

    @cached_property
    def sample(self) -> NDArray[np.uint8]:
        """Heads of some rows from everywhere, uint8 [rows, bytes]: to guess how near others are."""
        return np.ascontiguousarray(self.codes.heads[:: self.sample_step])

    @cached_property
    def lengths(self) -> tuple[float, float]:
        """Of the shortest and of the longest row, as the codes have them."""
        return float(self.codes.lengths.min()), float(self.codes.lengths.max())

    @property
    def useful(self) -> bool:
        """Whether searching by it is quicker than comparing everything."""
        return self.margins.scored_share <= _MAX_SCORED_SHARE

    def uncovered(self, segments: Sequence[Segment]) -> int:
        """How many rows of the segments it has no codes of."""
        counts = {id(cover.sequences): cover.count for cover in self.covers}
        return sum(segment.used - counts.get(id(segment.sequences), 0) for segment in segments)

    def outgrown(self, live: int) -> bool:
        """Whether it was trained on much fewer rows than there are."""
        return live >= _GROWTH * self.trained_count

    def unmeasured(self, rows: Rows) -> bool:
        """Whether its margins were measured without a fair share of these rows, by which they could be."""
        if rows.live < MIN_ROWS:
            return False
        new = sum(
            int(np.count_nonzero((s.sequences[: s.used] > self.measured_until) & ~s.dead[: s.used]))
            for s in rows.segments
        )
        return new > _UNMEASURED_SHARE * rows.live


def renewed(
    tier: Tier | None,
    segments: Sequence[Segment],
    metric: Metric,
    stopped: Stop = never,
    *,
    quick: bool = False,
) -> Tier:
    """A tier of all rows there are.

    Args:
        tier: whose codes are taken over, unless it is outgrown; None: all are made.
        segments: of a collection with live rows, some thousands at least.
        metric: of the collection.
        stopped: calls it off.
        quick: keep the margins, though they may be out of date.

    Raises:
        Stopped: it said so.
    """
    rows = Rows(segments)
    last = max(int(segment.sequences[segment.used - 1]) for segment in segments)
    trained = tier is None or tier.outgrown(rows.live)
    if tier is None or trained:
        coder = SignCoder.around(_mean(rows))
        margins, trained_count, measured_until = measured(rows, metric, coder), rows.live, last
    else:
        coder, margins, trained_count = tier.coder, tier.margins, tier.trained_count
        measured_until = tier.measured_until
        if not quick and tier.unmeasured(rows):
            # Codes that are taken over have heads already.
            margins = replace(measured(rows, metric, coder), head_bits=margins.head_bits)
            measured_until = last
    codes, covers, start = coder.room(int(rows.starts[-1]), margins.head_bits), [], 0
    for segment in segments:
        if stopped():
            raise Stopped
        stop = start + segment.used
        _fill(codes.at(slice(start, stop)), coder, segment, None if trained else tier)
        covers.append(Cover(segment.sequences, start, segment.used))
        start = stop
    sequences = joined([segment.sequences[: segment.used] for segment in segments])
    return Tier(coder, margins, trained_count, measured_until, codes, sequences, tuple(covers))


def _mean(rows: Rows) -> NDArray[np.float32]:
    step = -(-rows.live // _SAMPLE_ROWS)
    sample = rows.gather(rows.numbers[::step])
    return np.asarray(sample.mean(axis=0, dtype=np.float64), np.float32)


def _fill(codes: Codes, coder: SignCoder, segment: Segment, tier: Tier | None) -> None:
    """Make a segment's codes, of which those that the tier has are copied."""
    used = segment.used
    if tier is None or not len(tier.sequences):
        coder.code(segment.vectors[:used], codes)
        return
    for cover in tier.covers:
        if cover.sequences is segment.sequences and cover.count == used:
            codes.set(slice(None), tier.codes.at(slice(cover.start, cover.start + used)))
            return
    wanted = segment.sequences[:used]
    places = np.minimum(np.searchsorted(tier.sequences, wanted), len(tier.sequences) - 1)
    codes.set(slice(None), tier.codes.at(places))
    # Sequence 0 is no row's own.
    missing = np.flatnonzero((tier.sequences[places] != wanted) | (wanted == 0))
    for start in range(0, len(missing), _ROWS_AT_ONCE):
        part = missing[start : start + _ROWS_AT_ONCE]
        made = coder.room(len(part), codes.head_bits)
        coder.code(segment.vectors[part], made)
        codes.set(part, made)
