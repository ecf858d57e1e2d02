"""A bounded pool of threads for blocking work."""

import asyncio
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from service.errors import Overloaded

T = TypeVar("T")
# What is done here takes milliseconds: after this many a good part of a full queue is done.
_RETRY_AFTER_MS = 100.0
MAX_NICENESS = 19
# Of the threads that decode and infer: the event loop's lag at full load falls to a third.
NICENESS = 10
_MOST_FORGOTTEN = 64  # in the queue; each is an empty shell of some hundred bytes


class WorkerPool:
    """Threads with a bounded queue in front.

    Other than concurrent.futures' pool it forgets work whose caller left at once, with all that the work
    holds on to, and its threads never keep the process from ending.
    """

    def __init__(self, name: str, threads: int, capacity: int, niceness: int = 0) -> None:
        """Start the threads.

        Args:
            name: of the pool, for its threads and errors.
            threads: how many.
            capacity: pieces of work that wait for a thread at most.
            niceness: how much the threads' priority is below the process's, 0 to 19; Linux only. A
                processor that the event loop wakes up on is then its at once: the loop does little work
                for each image, and everybody waits for it.

        Raises:
            ValueError: the niceness is out of its range.
        """
        if not 0 <= niceness <= MAX_NICENESS:
            raise ValueError(f"niceness is {niceness}; expected 0 to {MAX_NICENESS}")
        self._name, self._capacity, self._niceness = name, capacity, niceness
        # Whoever takes a piece out of the set, a thread or its cancellation, decides what becomes of it.
        # Sets and queues of this kind need no lock around them.
        self._waiting: set[_Work] = set()
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._mailbox: _Mailbox | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pieces of work that no thread has begun."""
        return len(self._waiting)

    def submit(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Do `call` in a thread; from the event loop's thread.

        Returns:
            What `call` gives or raises. Where it is cancelled before a thread begins, nothing begins.

        Raises:
            Overloaded: the queue is full.
        """
        if len(self._waiting) >= self._capacity:
            raise Overloaded(
                f"the {self._name} queue is full ({self._capacity}); try again later", _RETRY_AFTER_MS
            )
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = _Mailbox(loop)
        work = _Work(loop=loop)
        work.call, work.forget, work.mailbox = call, self._forget, self._mailbox
        self._waiting.add(work)
        self._queue.put(work)
        return work

    async def run(self, call: Callable[[], T]) -> T:
        """Do `call` in a thread; it isn't begun any more once the caller has left.

        Raises:
            Overloaded: the queue is full.
        """
        return await self.submit(call)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Do nothing more; whether what runs has ended within the time."""
        self._waiting.clear()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout_s)
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended and self._mailbox is not None:
            self._mailbox.close_soon()
        return ended

    def _forget(self, work: "_Work") -> None:
        try:
            self._waiting.remove(work)
        except KeyError:  # a thread is at it
            return
        work.call = _nothing
        if self._queue.qsize() > 2 * len(self._waiting) + _MOST_FORGOTTEN:
            self._sweep()

    def _sweep(self) -> None:
        """Take what is forgotten out of the queue, however long the threads are busy."""
        kept = []
        with contextlib.suppress(Empty):
            while True:
                work = self._queue.get_nowait()
                if work is None or work in self._waiting:
                    kept.append(work)
        for work in kept:
            self._queue.put(work)

    def _run(self) -> None:
        _lower_priority(self._niceness)
        while (work := self._queue.get()) is not None:
            result = error = None
            try:
                self._waiting.remove(work)
            except KeyError:  # its caller left
                del work
                continue
            try:
                result = work.call()
            except BaseException as raised:  # noqa: BLE001 - the caller's to handle, whatever it is
                error = raised
            if not work.mailbox.deliver(work, result, error):
                return  # the loop is closed: nobody waits any more
            del work, result, error  # nothing is held on to while waiting for the next


class _Work(asyncio.Future[Any]):
    """One piece of work: what its caller awaits, and what a thread calls."""

    call: Callable[[], Any]
    forget: Callable[["_Work"], None]
    mailbox: "_Mailbox"

    def cancel(self, msg: Any | None = None) -> bool:
        """As every future's; tasks that await this one call it when they are cancelled."""
        cancelled = super().cancel(msg)
        if cancelled:
            self.forget(self)
        return cancelled


class _Mailbox:
    """Brings what threads have finished to an event loop.

    Waking a loop costs a system call. It is done once for all that is finished before the loop comes to
    look, which is several pieces when the loop is busy. Python lets go of the interpreter lock in that
    call, and the loop begins in it; `call_soon_threadsafe` holds on to the lock, and a loop that shares the
    thread's core wakes up only to wait for it: 0.3 ms of a lone caller's 12, tried by hand both ways.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._finished: deque[tuple[_Work, Any, BaseException | None]] = deque()
        self._woken = False
        self._bell: int | None = None
        if sys.platform == "linux":
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            # Whoever could ring it holds this mailbox, and so does the loop while it listens.
            weakref.finalize(self, os.close, self._bell)
            loop.add_reader(self._bell, self._hear)

    def deliver(self, work: _Work, result: Any, error: BaseException | None) -> bool:
        """From a thread; whether there is a loop still."""
        self._finished.append((work, result, error))
        # `_empty` clears the flag before it looks, so what is appended while the flag is up is seen.
        if self._woken:
            return True
        self._woken = True
        if self.loop.is_closed():
            return False
        if self._bell is not None:
            os.eventfd_write(self._bell, 1)
            return True
        try:
            self.loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            return False
        return True

    def close_soon(self) -> None:
        """Bring what has come, and listen no more; no thread delivers anything from now on."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._empty()
        if self._bell is not None:
            self.loop.remove_reader(self._bell)

    def _hear(self) -> None:
        os.eventfd_read(self._bell)  # type: ignore[arg-type] # it rang
        self._empty()

    def _empty(self) -> None:
        self._woken = False
        while self._finished:
            work, result, error = self._finished.popleft()
            if work.done():
                continue
            if error is None:
                work.set_result(result)
            else:
                work.set_exception(_of_future(error))
                work.exception()  # read once: see batching


def _of_future(error: BaseException) -> BaseException:
    """The error, unless futures take it for their own."""
    if not isinstance(error, StopIteration):
        return error
    replacement = RuntimeError("the work raised StopIteration")
    replacement.__cause__ = error
    return replacement


def _nothing() -> None:
    """Stands where a piece of work is no longer held."""


def _lower_priority(niceness: int) -> None:
    """Of the calling thread, which on Linux has a priority of its own."""
    if not niceness or sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # refused, as in some sandboxes: it then runs as the others do
        # The main thread's, not the one's that made this thread: that may be nice itself.
        main = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, thread, min(main + niceness, MAX_NICENESS))
