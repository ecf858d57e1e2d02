"""The rows that one search may find, numbered through all segments."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from service.retrieval.columns import Mask
from service.retrieval.segments import Segment


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

    @property
    def id(self) -> str:
        """The item's."""
        return self.segment.ids[self.row]


class Rows:
    """Some segments' rows: number n is row n - starts[s] of segment s.

    Attributes:
        segments: one at least.
        kept: for each bool [used], the rows that may be found (see `masks.kept_by`); None: all but the dead.
        starts: int64 [segments + 1]: the number of each one's first row.
        live: how many rows may be found.
    """

    def __init__(self, segments: Sequence[Segment], kept: Sequence[Mask] | None = None) -> None:
        self.segments, self.kept = segments, kept
        self.starts = np.cumsum([0, *(segment.used for segment in segments)])
        self.live = (
            sum(segment.live_count for segment in segments)
            if kept is None
            else sum(int(np.count_nonzero(mask)) for mask in kept)
        )

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """int64 [live], rising: those that may be found."""
        masks = self.kept or [~segment.dead[: segment.used] for segment in self.segments]
        return np.flatnonzero(np.concatenate(masks))

    @cached_property
    def largest_norm(self) -> float:
        """Of any row, rounded up."""
        return max(segment.largest_norm for segment in self.segments)

    @cached_property
    def memory(self) -> NDArray[Any]:
        """All segments' vectors and what lies between them, [rows, dimension]: index it by `reach` only."""
        first = min(self.segments, key=lambda segment: segment.first_row)
        last = max(segment.first_row + len(segment.vectors) for segment in self.segments)
        shape = (last - first.first_row, first.vectors.shape[1])
        return as_strided(first.vectors, shape, writeable=False)

    @cached_property
    def _shifts(self) -> NDArray[np.int64]:
        firsts = np.array([segment.first_row for segment in self.segments])
        return np.asarray(firsts - firsts.min() - self.starts[:-1], np.int64)

    def _segments_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def reach(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those rows are in `memory`, of the same shape; -1, which is none, stays."""
        places = numbers + self._shifts[self._segments_of(numbers)]
        places[numbers < 0] = -1
        return places

    def gather(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of those rows, float32 [..., dimension]."""
        return self.memory.take(self.reach(numbers), axis=0).astype(np.float32, copy=False)

    def places(self, numbers: NDArray[np.int64]) -> list[tuple[Segment, int]]:
        """Segment and row of each of those rows, [rows]."""
        where = self._segments_of(numbers)
        rows = numbers - self.starts[where]
        return [(self.segments[place], row) for place, row in zip(where.tolist(), rows.tolist(), strict=True)]

    def hits(self, numbers: NDArray[np.int64], scores: NDArray[Any]) -> list[list[Hit]]:
        """Those rows, [queries, hits], with their scores."""
        places = iter(self.places(numbers.ravel()))
        return [
            [Hit(segment, row, score) for score, (segment, row) in zip(line, places, strict=False)]
            for line in scores.tolist()
        ]
