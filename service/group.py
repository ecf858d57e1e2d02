"""What one caller waits for: a group of values, each ending exactly once with its result or its own error."""

import asyncio
import enum
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from service.errors import DeadlineExpired, RequestError

Out = TypeVar("Out")


class Queue(Protocol):
    """What an entry knows of the queue that it waits in."""

    def discard(self, entry: "Entry") -> None:
        """Take the entry out."""


class Priority(enum.IntEnum):
    """Who goes first: people who wait, or work that only has to be done."""

    INTERACTIVE = 0
    BULK = 1


class Entry:
    """One value on its way through the queues.

    Attributes:
        group: whom its result goes to, at `index`.
        value: what the next stage works on; dropped with the entry.
        arrived: loop time, in the queue it is in or was in last.
        queue: the one it waits in; None while it is worked on.
    """

    __slots__ = ("arrived", "group", "index", "queue", "value")

    def __init__(self, group: "Group[Any]", index: int, value: Any = None) -> None:
        self.group, self.index, self.value = group, index, value
        self.arrived = 0.0
        self.queue: Queue | None = None
        group.entries.append(self)


class Group(Generic[Out]):
    """The values of one request; they share a deadline and a priority.

    Belongs to one event loop. A group is over when every value has its result, when its deadline
    passes, or when its caller leaves; what of it still waits in a queue then leaves the queue at once.

    Attributes:
        deadline: loop time, in seconds.
        priority: its entries' place in the queues.
        entries: one per value.
        over: nobody waits for it any more.
    """

    __slots__ = (
        "_future", "_missing", "_on_over", "_results", "_timer", "deadline", "entries", "over", "priority",
    )  # fmt: skip

    def __init__(
        self,
        size: int,
        deadline: float,
        priority: Priority = Priority.INTERACTIVE,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        timed: bool = True,
        on_over: Callable[[], None] | None = None,
    ) -> None:
        """Begin to wait for `size` results.

        Args:
            size: how many.
            deadline: loop time, in seconds.
            priority: its entries' place in the queues.
            loop: the one that runs; who knows it saves asking.
            timed: whether the group ends by itself at its deadline; else only `until_done` sees to it.
            on_over: called once, as soon as the group is over, whether or not anybody looks then.
        """
        loop = loop or asyncio.get_running_loop()
        self.deadline, self.priority = deadline, priority
        self.entries: list[Entry] = []
        self.over = False
        self._on_over = on_over
        self._missing = size
        self._results: list[Out | RequestError | None] = [None] * size
        self._future: asyncio.Future[list[Out | RequestError]] = loop.create_future()
        self._timer = loop.call_at(deadline, self._expire) if timed else None

    @property
    def done(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        return self._future.done()

    def set(self, index: int, result: Out | RequestError) -> None:
        """End one value with its result or its own error; of no effect once the group is over."""
        # A caller who is being cancelled has cancelled the future, and leaves only when its task runs.
        if self.over or self._future.done():
            return
        self._results[index] = result
        self._missing -= 1
        if not self._missing:
            self._end()
            self._future.set_result(self._results)  # type: ignore[arg-type] # none is missing any more

    def fail(self, error: Exception) -> None:
        """End the whole group with an error; of no effect once it is over."""
        if self.over:
            return
        self.leave()
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # read once, so that asyncio doesn't complain if nobody asks any more

    def leave(self) -> None:
        """Nobody waits any more: free what is in the queues. Idempotent."""
        if self.over:
            return
        for entry in self.entries:
            if entry.queue is not None:
                entry.queue.discard(entry)
        self._end()

    async def until_done(self) -> None:
        """Wait for that, to the deadline; a caller who is cancelled meanwhile hasn't left yet."""
        await asyncio.wait([self._future], timeout=max(0.0, self.deadline - time.monotonic()))
        if not self._future.done():
            self._expire()

    def results(self) -> list[Out | RequestError]:
        """The results of a group that is done, in order.

        Raises:
            RequestError: the whole group failed.
        """
        return self._future.result()

    async def wait(self) -> list[Out | RequestError]:
        """The results, in order; leaves when it is cancelled.

        Raises:
            DeadlineExpired: the deadline passed first.
            RequestError: the whole group failed.
        """
        try:
            return await self._future
        finally:
            self.leave()

    def _end(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self.entries.clear()
        if self._on_over is not None:
            self._on_over()
            self._on_over = None

    def _expire(self) -> None:
        self.fail(DeadlineExpired("the deadline passed before every image's result was there"))
