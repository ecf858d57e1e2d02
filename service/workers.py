"""A bounded pool of threads for blocking work."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.errors import Overloaded

T = TypeVar("T")
# What is done here takes milliseconds: after this many a good part of a full queue is done.
_RETRY_AFTER_MS = 100.0


@dataclass(eq=False)
class _Work:
    call: Callable[[], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class WorkerPool:
    """Threads with a bounded queue in front.

    Other than concurrent.futures' pool it forgets work whose caller left at once, with all that the work
    holds on to, and its threads never keep the process from ending.
    """

    def __init__(self, name: str, threads: int, capacity: int) -> None:
        """Start `threads` threads; at most `capacity` pieces of work wait for them."""
        self._name, self._capacity = name, capacity
        self._waiting: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """Do `call` in a thread; it isn't begun any more once the caller has left.

        Raises:
            Overloaded: the queue is full.
        """
        loop = asyncio.get_running_loop()
        work = _Work(call, loop.create_future(), loop)
        with self._changed:
            if len(self._waiting) >= self._capacity:
                raise Overloaded(
                    f"the {self._name} queue is full ({self._capacity}); try again later", _RETRY_AFTER_MS
                )
            self._waiting.append(work)
            self._changed.notify()
        try:
            return await work.future  # type: ignore[no-any-return] # what the call gives
        except asyncio.CancelledError:
            with self._changed:
                if work in self._waiting:
                    self._waiting.remove(work)
            raise

    def close(self, timeout_s: float = 2.0) -> bool:
        """Do nothing more; whether what runs has ended within the time."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                work = self._waiting.popleft()
            try:
                result, error = work.call(), None
            except BaseException as raised:  # noqa: BLE001 - the caller's to handle, whatever it is
                result, error = None, raised
            try:
                work.loop.call_soon_threadsafe(_finish, work.future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del work, result, error  # nothing is held on to while waiting for the next


def _finish(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # read once: see batching
