"""What was written to a collection while it is being built anew."""

import threading
from collections.abc import Sequence

from service.errors import Overloaded
from service.retrieval.filters import Filter

MAX_IDS = 100_000
MAX_FILTERS = 100
_RETRY_AFTER_MS = 60_000.0


class Journal:
    """Notes ids that were written or deleted, and filters that were deleted by, until they are taken.

    The items are copied in the order of their ids, as they stand when their page is read. So what lies
    behind the pages that were read isn't noted: it will be read as it is then. Filters are to be carried
    out before ids: an id that was written after a deletion by filter is always noted.

    The thread that writes notes, after each write; others take.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, None] = {}
        self._filters: list[Filter] = []
        self._read_up_to: str | None = None
        self._full = False

    def __len__(self) -> int:
        return len(self._ids) + len(self._filters)

    def reading(self) -> None:
        """A page is being read: whether a write meanwhile shows in it is open, so all are noted."""
        with self._lock:
            self._read_up_to = None

    def read_up_to(self, last_id: str) -> None:
        """Pages up to this id have been read."""
        with self._lock:
            self._read_up_to = last_id

    def note(self, ids: Sequence[str], condition: Filter | None = None) -> None:
        """These ids were written or deleted, or those that the filter kept were deleted."""
        with self._lock:
            if condition is not None:
                self._filters.append(condition)
            if self._filters or self._read_up_to is None:
                self._ids.update(dict.fromkeys(ids))
            else:
                self._ids.update((name, None) for name in ids if name <= self._read_up_to)
            self._full = self._full or len(self._ids) > MAX_IDS or len(self._filters) > MAX_FILTERS
            if self._full:
                self._ids.clear()
                self._filters.clear()

    def take(self) -> tuple[list[Filter], list[str]]:
        """What was noted since the last time: filters, to be carried out first, and ids.

        Raises:
            Overloaded: there was more than it holds.
        """
        with self._lock:
            if self._full:
                raise Overloaded(
                    f"more than {MAX_IDS:,} items or {MAX_FILTERS:,} filters were written and deleted while "
                    "the collection was being built anew; it is as it was: try again when less is written",
                    _RETRY_AFTER_MS,
                )
            ids, last = list(self._ids), self._read_up_to
            # What isn't read yet will be: done now, it would outlive a later deletion, which isn't noted.
            taken = self._filters, ids if last is None else [name for name in ids if name <= last]
            self._filters, self._ids = [], {}
            return taken
