"""The threads that call the index, which blocks: reads, writes one at a time, and what takes long."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import DeadlineExpired, Overloaded, Unavailable
from service.workers import WorkerPool

T = TypeVar("T")
_MAX_PENDING_CALLS = 256
# Each takes a disk or a core for itself, so more would only be slower, and more memory.
_UPKEEP_THREADS = 2
_MAX_PENDING_UPKEEP = 16


class Stop:
    """Tells work in a thread that nobody waits for it any more; the work asks now and then."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._left = threading.Event()

    def leave(self) -> None:
        """Nobody waits."""
        self._left.set()

    def check(self) -> None:
        """Raises:
        DeadlineExpired: it passed.
        Unavailable: the caller left, or the server stops.
        """
        if self._left.is_set():
            raise Unavailable("the caller left, or the server stops")
        if time.monotonic() >= self._deadline:
            raise DeadlineExpired("the deadline passed; the work that was left is not done")


class IndexThreads:
    """Runs calls of the index; deadlines are loop times, in seconds.

    All methods raise DeadlineExpired, and Overloaded where too much waits already.
    """

    def __init__(self, search_threads: int) -> None:
        """Start the threads, of which so many read."""
        self._readers = WorkerPool("search", search_threads, _MAX_PENDING_CALLS)
        # The index takes one write at a time; a second thread would only wait.
        self._writer = WorkerPool("write", 1, _MAX_PENDING_CALLS)
        self._upkeep = WorkerPool("upkeep", _UPKEEP_THREADS, _MAX_PENDING_UPKEEP)
        self._stops: set[Stop] = set()

    async def read(self, call: Callable[[], T], deadline: float, *, patient: bool = False) -> T:
        """What `call` gives; who is patient waits while too much waits already."""
        return await in_time(
            _run(self._readers, call, patient),
            deadline,
            "the deadline passed before the index had answered",
        )

    async def write(self, call: Callable[[], T], deadline: float, *, patient: bool = False) -> T:
        """What `call` gives, after all writes that were asked for before it; patience as for `read`."""

        def write() -> T:
            # In the thread: there the write begins, perhaps long after it was asked for.
            if time.monotonic() >= deadline:
                raise DeadlineExpired("the deadline passed before the write began; nothing was written")
            return call()

        return await in_time(
            _run(self._writer, write, patient),
            deadline,
            "the deadline passed before the write was acknowledged; it may be done all the same",
        )

    def submit_write(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """What `call` will give, in the turn that it gets at once; it sees to deadlines itself."""
        return self._writer.submit(call)

    async def upkeep(self, call: Callable[[Stop], T], deadline: float) -> T:
        """What `call` gives: long work, which has to ask its `Stop` whether it is still wanted."""
        stop = Stop(deadline)
        self._stops.add(stop)
        try:
            return await in_time(
                self._upkeep.run(lambda: call(stop)), deadline, "the deadline passed before the work was done"
            )
        finally:
            self._stops.discard(stop)
            stop.leave()

    def close(self, timeout_s: float) -> tuple[bool, bool]:
        """End the threads; whether those that read, and those that write, ended within the time."""
        for stop in self._stops:
            stop.leave()
        readers_ended = self._readers.close(timeout_s)
        upkeep_ended = self._upkeep.close(timeout_s)
        return readers_ended, self._writer.close(timeout_s) and upkeep_ended


async def _run(pool: WorkerPool, call: Callable[[], T], patient: bool) -> T:
    while True:
        try:
            work = pool.submit(call)
        except Overloaded as error:
            if not patient:
                raise
            await asyncio.sleep(error.retry_after_ms / 1000)
        else:
            return await work


async def in_time(work: Awaitable[T], deadline: float, message: str) -> T:
    """What `work` gives.

    Raises:
        DeadlineExpired: with the message.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExpired(message) from None
