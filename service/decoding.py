"""The decoding stage: entries wait, most urgent first, for a decoding thread."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from service.entry_queue import EntryQueue
from service.errors import DeadlineExpired, InferenceFailed, RequestError
from service.group import Entry, Group
from service.workers import NICENESS, WorkerPool

T = TypeVar("T")
log = structlog.get_logger()
# So that a thread never waits for the event loop to hand it its next work.
_LOOKAHEAD = 1


class _Job(NamedTuple):
    decode: Callable[[], Any]
    then: Callable[[Entry, Any], None]


class DecodingStage:
    """Feeds a pool of threads in the order of `EntryQueue`. All methods belong to one event loop."""

    def __init__(self, threads: int) -> None:
        """Start the threads. The doors bound what is in; here at most the lookahead waits in the pool."""
        self._most_running = threads + _LOOKAHEAD
        self._pool = WorkerPool("decode", threads, self._most_running, NICENESS)
        self._queue = EntryQueue()
        self._running = 0

    def put(self, entry: Entry, decode: Callable[[], Any], then: Callable[[Entry, Any], None]) -> None:
        """Queue an entry.

        Args:
            entry: its value is taken over by this stage.
            decode: the work, done in a thread.
            then: is given the entry and what `decode` gave, on the loop, unless the group is over.
                Where `decode` raises, the entry ends with that error.
        """
        entry.value = _Job(decode, then)
        entry.arrived = time.monotonic()
        self._queue.push(entry)
        self._feed()

    def close(self, timeout_s: float) -> bool:
        """End the threads; whether they ended within the time."""
        return self._pool.close(timeout_s)

    def _feed(self) -> None:
        while self._running < self._most_running and self._queue:
            entry = self._queue.take(1)[0]
            if entry.group.deadline <= time.monotonic():  # its timer, if it has one, is late too
                entry.group.fail(DeadlineExpired("the deadline passed before the image was decoded"))
                continue
            job: _Job = entry.value
            entry.value = None
            self._running += 1
            work = partial(_unless_over, entry.group, job.decode)
            self._pool.submit(work).add_done_callback(partial(self._finish, entry, job.then))

    def _finish(
        self, entry: Entry, then: Callable[[Entry, Any], None], future: "asyncio.Future[Any]"
    ) -> None:
        self._running -= 1
        if not entry.group.over and not future.cancelled():
            result = future.result()
            if not isinstance(result, RequestError):
                result = attempted(partial(then, entry, result))
            if isinstance(result, RequestError):
                entry.group.set(entry.index, result)
        self._feed()


def attempted(decode: Callable[[], T]) -> T | RequestError:
    """What `decode` gives, or what is wrong with its image.

    A value, without traceback and context: their frames would keep the image's bytes until the garbage
    collector comes by.
    """
    try:
        return decode()
    except RequestError as error:
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)
    except Exception as error:  # the decoder's own fault: this image fails, and nothing else
        log.error("decode_crashed", exc_info=error)
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return InferenceFailed(f"the server failed to decode the image: {type(error).__name__}")


def _unless_over(group: Group[Any], decode: Callable[[], Any]) -> Any:
    """In a thread; a caller who left while the work waited for it is seen here."""
    return None if group.over else attempted(decode)
