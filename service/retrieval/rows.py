"""The rows that one search may find, numbered through all segments."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
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

    def gather(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of those rows, float32 [..., dimension]."""
        chosen = numbers.ravel()
        dimension = self.segments[0].vectors.shape[1]
        vectors = np.empty((len(chosen), dimension), np.float32)
        order, bounds = self.by_segment(chosen)
        for place in np.flatnonzero(np.diff(bounds)).tolist():
            here = order[bounds[place] : bounds[place + 1]]
            vectors[here] = self.segments[place].vectors.take(chosen[here] - self.starts[place], axis=0)
        return vectors.reshape(*numbers.shape, dimension)

    def by_segment(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row numbers, [rows], sorted by their segments; -1, which is none, comes last.

        Returns:
            The order int64 [rows], and where in it each segment's begin, int64 [segments + 1].
        """
        count = len(self.segments)
        where = np.searchsorted(self.starts, numbers, side="right") - 1
        where[numbers < 0] = count
        # Of few bits, so that sorting them takes one pass or two.
        order = np.argsort(where.astype(np.min_scalar_type(count)), kind="stable")
        return order, np.searchsorted(where[order], np.arange(count + 1))

    def places(self, numbers: NDArray[np.int64]) -> list[tuple[Segment, int]]:
        """Segment and row of each of those rows, [rows]."""
        where = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = numbers - self.starts[where]
        return [(self.segments[place], row) for place, row in zip(where.tolist(), rows.tolist(), strict=True)]

    def hits(self, numbers: NDArray[np.int64], scores: NDArray[Any]) -> list[Hit]:
        """Those rows, [hits], with their scores."""
        return [
            Hit(segment, row, score)
            for (segment, row), score in zip(self.places(numbers), scores.tolist(), strict=True)
        ]
