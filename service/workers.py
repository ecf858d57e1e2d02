"""A bounded pool of threads for blocking work."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import Overloaded

T = TypeVar("T")
# Index calls take milliseconds: after this many a good part of a full queue is done.
_RETRY_AFTER_MS = 100.0


class WorkerPool:
    """Threads with a bounded queue in front; work whose caller left before its turn is not done."""

    def __init__(self, name: str, threads: int, capacity: int) -> None:
        """Make a pool of `threads` that holds at most `capacity` pieces of work, running ones included."""
        self._name, self._capacity = name, capacity
        self._executor = ThreadPoolExecutor(threads, name)
        self._held = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread.

        Raises:
            Overloaded: the queue is full.
        """
        if self._held >= self._capacity:
            raise Overloaded(
                f"the {self._name} queue is full ({self._capacity}); try again later", _RETRY_AFTER_MS
            )
        future = self._executor.submit(work)
        self._held += 1
        loop = asyncio.get_running_loop()
        # Counted until the thread is done with it, also when the caller has left.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._held -= 1

    def close(self) -> None:
        """Wait for what runs; drop what doesn't yet."""
        self._executor.shutdown(cancel_futures=True)
