"""Who is served next: the earliest deadline first, of those who wait before bulk, which keeps a share."""

import itertools
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from service.group import Entry, Priority

# Of so many places one is for bulk work while both wait, so that it never starves.
_BULK_EVERY = 10
BULK_SHARE = 1 / _BULK_EVERY
_FEW = 64


class EntryQueue:
    """Entries in order of deadline (Liu & Layland 1973: earliest deadline first), a heap per priority.

    Knows no time and no limit: admission bounds what comes in. An entry that leaves lets go of its value
    at once, and of its place in the heap when that is half empty.
    """

    def __init__(self) -> None:
        """Make an empty queue."""
        self._heaps: tuple[list[tuple[float, int, Entry]], ...] = tuple([] for _ in Priority)
        self._live = [0 for _ in Priority]
        self._numbers = itertools.count()  # of equal deadlines the first to come goes first
        self._bulk_credit = 0  # in places, times _BULK_EVERY

    def __len__(self) -> int:
        """Entries that wait."""
        return self._live[0] + self._live[1]

    def __iter__(self) -> Iterator[Entry]:
        """Those that wait, in no order."""
        return (entry for heap in self._heaps for _, _, entry in heap if entry.queue is self)

    def push(self, entry: Entry) -> None:
        """Let an entry wait."""
        group = entry.group
        entry.queue = self
        self._live[group.priority] += 1
        heappush(self._heaps[group.priority], (group.deadline, next(self._numbers), entry))

    def discard(self, entry: Entry) -> None:
        """Take out one that waits here, wherever it is."""
        priority = entry.group.priority
        entry.queue = entry.value = None
        self._live[priority] -= 1
        heap = self._heaps[priority]
        if len(heap) > _FEW and len(heap) > 2 * self._live[priority]:
            heap[:] = [place for place in heap if place[2].queue is self]
            heapify(heap)

    def take(self, limit: int) -> list[Entry]:
        """Take out the next entries, at most `limit`; the most urgent first within a priority."""
        interactive, bulk = self._live
        if bulk and interactive > limit - bulk:  # not all fit
            self._bulk_credit += limit
            reserved = min(bulk, self._bulk_credit // _BULK_EVERY)
            # What few can't use isn't saved up for many, who would shut the others out.
            self._bulk_credit = 0 if reserved == bulk else self._bulk_credit - _BULK_EVERY * reserved
        else:
            self._bulk_credit = reserved = 0
        batch = self._pop(Priority.INTERACTIVE, min(interactive, limit - reserved))
        return batch + self._pop(Priority.BULK, min(bulk, limit - len(batch))) if bulk else batch

    def earliest_deadline(self) -> float:
        """Of all that wait; infinity if none does."""
        return min(self._peek(priority) for priority in Priority)

    def _peek(self, priority: Priority) -> float:
        heap = self._heaps[priority]
        while heap and heap[0][2].queue is not self:
            heappop(heap)
        return heap[0][0] if heap else float("inf")

    def _pop(self, priority: Priority, count: int) -> list[Entry]:
        heap = self._heaps[priority]
        taken: list[Entry] = []
        if count == len(heap):  # all of them, and none has left: sorting them is cheaper
            heap.sort()
            taken = [place[2] for place in heap]
            heap.clear()
            for entry in taken:
                entry.queue = None
        while len(taken) < count:
            entry = heappop(heap)[2]
            if entry.queue is self:
                entry.queue = None
                taken.append(entry)
        self._live[priority] -= count
        return taken
