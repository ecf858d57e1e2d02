"""The vectors of one collection in memory: segments that writers add to and searches never wait for.

Every change makes a new tuple of segments and publishes it by one assignment; a search works on the tuple
that it took, so it sees all of a write or nothing of it. Rows, once visible, don't change: a replaced item
gets a new row at the end, and its old row is marked dead in the new tuple only. So rows stand in the order
of writing. When a quarter of a segment is dead its rows are copied into a new one, without the dead.

Segments have a fixed capacity because one growing array would be copied as it grows: both copies at once
are 1.65 × the memory, and everyone waits. Rows not yet used take address space but no memory.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.retrieval.checks import Batch
from service.retrieval.columns import Columns
from service.retrieval.index import Storage
from service.retrieval.own_pages import aligned_rows, first_row
from service.retrieval.schema import Schema

MAX_SEGMENT_ROWS = 16_384
MAX_SEGMENT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Segment:
    """Some rows of a collection.

    Attributes:
        vectors: float32 or float16 [capacity, dimension], from `aligned_rows`; rows from `used` on belong to
            the writer.
        ids: of the rows; longer than `used` where the writer is ahead.
        attributes: JSON of the rows, likewise.
        columns: those that the collection declares, likewise.
        sequences: int64 [capacity]: under which number the record has each row; rising. 0: it hasn't.
        used: how many rows are written.
        dead: bool [capacity]: rows that were replaced or deleted; never changed in place.
        dead_count: how many of them.
        largest_norm: of any row, rounded up.
    """

    vectors: NDArray[Any]
    ids: list[str]
    attributes: list[str]
    columns: Columns
    sequences: NDArray[np.int64]
    used: int
    dead: NDArray[np.bool_]
    dead_count: int
    largest_norm: float

    @property
    def live_count(self) -> int:
        """How many rows can be found."""
        return self.used - self.dead_count

    @cached_property
    def first_row(self) -> int:
        """Where in memory its vectors begin, in rows."""
        return first_row(self.vectors)

    def without(self, rows: Sequence[int]) -> "Segment":
        """The same with these live rows dead."""
        dead = self.dead.copy()
        dead[rows] = True
        return replace(self, dead=dead, dead_count=self.dead_count + len(rows))

    def extended(
        self, batch: Batch, start: int, stop: int, sequences: NDArray[np.int64] | None = None
    ) -> "Segment":
        """The same with rows `start` to `stop` of the batch at the end; there must be room."""
        attributes = batch.attributes[start:stop]
        self.columns.write(self.used, attributes)
        numbers = np.zeros(stop - start, np.int64) if sequences is None else sequences[start:stop]
        return self._grown(batch.vectors[start:stop], batch.ids[start:stop], attributes, numbers)

    def joined(self, other: "Segment") -> "Segment":
        """The same with the live rows of another of the collection at the end; there must be room."""
        rows = np.flatnonzero(~other.dead[: other.used])
        ids, attributes = ([texts[row] for row in rows] for texts in (other.ids, other.attributes))
        self.columns.copy(self.used, other.columns, rows)
        return self._grown(other.vectors[rows], ids, attributes, other.sequences[rows])

    def _grown(
        self,
        vectors: NDArray[Any],
        ids: Sequence[str],
        attributes: Sequence[str],
        sequences: NDArray[np.int64],
    ) -> "Segment":
        used = self.used + len(ids)
        self.vectors[self.used : used] = vectors
        self.sequences[self.used : used] = sequences
        # A change that was prepared and never published may have left its own behind.
        del self.ids[self.used :], self.attributes[self.used :]
        self.ids.extend(ids)
        self.attributes.extend(attributes)
        wide = vectors.astype(np.float32, copy=False)
        norm = float(np.sqrt(np.einsum("nd,nd->n", wide, wide).max(initial=0))) * 1.01
        return replace(self, used=used, largest_norm=max(self.largest_norm, norm))


@dataclass(frozen=True)
class Change:
    """What a write will make of a collection.

    Attributes:
        segments: by key, in the order of rows.
        placed: id → row number, for those that the change writes or moves.
        removed: ids that it deletes.
    """

    segments: dict[int, Segment]
    placed: dict[str, int]
    removed: Sequence[str]


class Segments:
    """All rows of one collection. One writer at a time; readers at any time."""

    def __init__(
        self,
        dimension: int,
        max_rows: int = MAX_SEGMENT_ROWS,
        *,
        storage: Storage = Storage.FLOAT32,
        schema: Schema | None = None,
    ) -> None:
        """
        Args:
            dimension: of every vector.
            max_rows: of a segment; fewer where as float32 they would take more than `MAX_SEGMENT_BYTES`.
            storage: in what vectors are kept.
            schema: the attributes that become columns.
        """
        self._dimension, self._dtype, self._schema = dimension, np.dtype(storage.value), schema or {}
        self._capacity = max(1, min(max_rows, MAX_SEGMENT_BYTES // (4 * dimension)))
        self._segments: dict[int, Segment] = {}
        # id → segment key × capacity + row: one int an item is the smallest that Python offers.
        self._rows: dict[str, int] = {}
        # Held for memory operations only, so that `read` finds rows and segments of one state.
        self._publishing = threading.Lock()

    def view(self) -> tuple[Segment, ...]:
        """The collection as it stands; what is written later doesn't change it."""
        return tuple(self._segments.values())

    def __len__(self) -> int:
        return sum(segment.live_count for segment in self.view())

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def read(self, ids: Iterable[str]) -> list[tuple[Segment, int]]:
        """Segment and row of each id that is there."""
        with self._publishing:
            segments = self._segments
            rows = [self._rows[name] for name in ids if name in self._rows]
        places = (divmod(row, self._capacity) for row in rows)
        return [(segments[key], row) for key, row in places]

    def prepare(
        self,
        batch: Batch | None = None,
        removed: Sequence[str] = (),
        sequences: NDArray[np.int64] | None = None,
    ) -> Change:
        """Do all of a write that can fail; nobody sees it until it is published, and it may be dropped.

        Args:
            batch: items to add or replace.
            removed: ids to delete, each once and all there.
            sequences: int64 [items]: the record's, of the batch.
        """
        segments, placed = dict(self._segments), dict[str, int]()
        stale: dict[int, list[int]] = {}
        for name in chain(batch.ids if batch else (), removed):
            if name in self._rows:
                key, row = divmod(self._rows[name], self._capacity)
                stale.setdefault(key, []).append(row)
        for key, rows in stale.items():
            segments[key] = segments[key].without(rows)
        if any(segments[key].dead_count * 4 >= segments[key].used for key in stale):
            segments = self._compact(segments, placed)
        if batch:
            self._append(segments, placed, batch, sequences)
        return Change(segments, placed, removed)

    def publish(self, change: Change) -> None:
        """Let everyone see the change, which must be the last one prepared."""
        with self._publishing:
            self._rows.update(change.placed)
            for name in change.removed:
                del self._rows[name]
            self._segments = change.segments

    @property
    def capacity(self) -> int:
        """Rows of a segment."""
        return self._capacity

    def adopt(self, segment: Segment) -> None:
        """Add a segment as it is behind all others; none of its ids is in them. Before anyone reads."""
        key = next(reversed(self._segments), -1) + 1
        self._segments[key] = segment
        for row in np.flatnonzero(~segment.dead[: segment.used]).tolist():
            self._rows[segment.ids[row]] = key * self._capacity + row

    def _append(
        self,
        segments: dict[int, Segment],
        placed: dict[str, int],
        batch: Batch,
        sequences: NDArray[np.int64] | None,
    ) -> None:
        start, total = 0, len(batch.ids)
        while start < total:
            key = next(reversed(segments), -1)
            if key < 0 or segments[key].used == self._capacity:
                key += 1
                segments[key] = self._empty()
            used = segments[key].used
            stop = min(total, start + self._capacity - used)
            segments[key] = segments[key].extended(batch, start, stop, sequences)
            first = key * self._capacity + used - start
            for number in range(start, stop):
                placed[batch.ids[number]] = first + number
            start = stop

    def _compact(self, segments: dict[int, Segment], placed: dict[str, int]) -> dict[int, Segment]:
        """Copy those with a quarter dead, together with neighbours that fit into the same segment."""
        groups: list[list[int]] = []
        room = 0
        for key, segment in segments.items():
            if groups and segment.live_count <= room:
                groups[-1].append(key)
            else:
                groups.append([key])
                room = self._capacity
            room -= segment.live_count
        compacted: dict[int, Segment] = {}
        for group in groups:
            if len(group) == 1 and segments[group[0]].dead_count * 4 < segments[group[0]].used:
                compacted[group[0]] = segments[group[0]]
            elif any(segments[key].live_count for key in group):
                compacted[group[0]] = self._joined([segments[key] for key in group], group[0], placed)
        return compacted

    def _joined(self, parts: Sequence[Segment], key: int, placed: dict[str, int]) -> Segment:
        joined = self._empty()
        for part in parts:
            first = joined.used
            joined = joined.joined(part)
            placed.update((joined.ids[row], key * self._capacity + row) for row in range(first, joined.used))
        return joined

    def _empty(self) -> Segment:
        vectors = aligned_rows(self._capacity, self._dimension, self._dtype)
        columns = Columns(self._schema, self._capacity)
        sequences = np.empty(self._capacity, np.int64)
        return Segment(vectors, [], [], columns, sequences, 0, np.zeros(self._capacity, np.bool_), 0, 0.0)
