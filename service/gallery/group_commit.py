"""Upserts that wait for the writer at the same time, written together: the disk flushes once for all."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.errors import DeadlineExpired, InvalidRequest, Overloaded, VectorMismatch
from service.retrieval.index import Item

_MAX_WAITING = 256
# Other writes wait for these.
_MAX_ITEMS_TOGETHER = 4096
_RETRY_AFTER_MS = 100.0
# None: it was written.
Outcome = tuple["Entry", BaseException | None]


@dataclass(frozen=True, eq=False)
class Entry:
    """One request's items.

    Attributes:
        items: checked already.
        check: raises where they may not be written any more.
        deadline: loop time, in seconds; they aren't written after it.
        written: how it ended; cancelled by whoever doesn't wait any more.
    """

    items: Sequence[Item]
    check: Callable[[], None]
    deadline: float
    written: "asyncio.Future[None]"


class GroupCommit:
    """The upserts to one collection that wait. `add` belongs to the event loop."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], None],
        submit: "Callable[[Callable[[], list[Outcome]]], asyncio.Future[list[Outcome]]]",
    ) -> None:
        """Wait for the first.

        Args:
            write: writes items, all or none, in the thread that writes.
            submit: has something done in that thread, in turn; raises Overloaded.
        """
        self._write, self._submit = write, submit
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Let a request's items be written in turn, behind those added before.

        Raises:
            Overloaded: too many wait.
        """
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                raise Overloaded(
                    f"{len(self._waiting)} upserts wait for this collection; try again later", _RETRY_AFTER_MS
                )
            if not self._waiting:
                self._submit(self._write_all).add_done_callback(_deliver)
            self._waiting.append(entry)

    def _write_all(self) -> list[Outcome]:
        """In the thread that writes."""
        with self._lock:
            entries, self._waiting = self._waiting, []
        outcomes: list[Outcome] = []
        together: list[Entry] = []
        count = 0
        for entry in entries:
            if entry.written.done():  # nobody waits for it any more
                continue
            if together and count + len(entry.items) > _MAX_ITEMS_TOGETHER:
                outcomes += self._write_together(together)
                together, count = [], 0
            together.append(entry)
            count += len(entry.items)
        return outcomes + self._write_together(together)

    def _write_together(self, entries: Sequence[Entry]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        good = []
        for entry in entries:
            try:
                if time.monotonic() >= entry.deadline:
                    raise DeadlineExpired("the deadline passed before the write began; nothing was written")
                entry.check()
                good.append(entry)
            except Exception as error:  # noqa: BLE001 - its request's to handle, whatever it is
                outcomes.append((entry, error))
        if not good:
            return outcomes
        try:
            self._write([item for entry in good for item in entry.items])
        except (InvalidRequest, VectorMismatch) as error:
            # The collection changed since they were checked. All or none were written: find out whose it is.
            if len(good) == 1:
                return [*outcomes, (good[0], error)]
            return outcomes + [outcome for entry in good for outcome in self._write_together([entry])]
        except BaseException as error:  # noqa: BLE001 - as above
            return outcomes + [(entry, error) for entry in good]
        return outcomes + [(entry, None) for entry in good]


def _deliver(work: "asyncio.Future[list[Outcome]]") -> None:
    if work.cancelled():
        return
    for entry, error in work.result():
        if entry.written.done():
            continue
        if error is None:
            entry.written.set_result(None)
        else:
            entry.written.set_exception(error)
