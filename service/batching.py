"""The dynamic batcher: many callers' values → few runs. It knows no model, only a function to call.

Rules, each with its test:
  1. At the door: room for every image of a request, or the request is refused at once. A stream
     waits for room instead.
  2. A batch runs when it is full, when its first entry has waited `max_queue_delay_ms`, or when an
     entry's deadline allows no more waiting.
  3. Entries whose caller left or whose deadline passed are dropped before the run, not after it.
  4. A caller who leaves never takes its mates along; a run that fails fails its own batch only.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.errors import (
    DeadlineExpired,
    InferenceFailed,
    InvalidRequest,
    Overloaded,
    RequestError,
    Unavailable,
)

# A run that starts just in time by the clock ends just too late for its caller.
_RUN_MARGIN = 1.25

In = TypeVar("In")
Out = TypeVar("Out")


class BatchObserver(Protocol):
    """What the batcher tells its owner's metrics."""

    def depth(self, images: int) -> None:
        """Images that are in: decoding, waiting or running."""

    def shed(self, reason: str, images: int) -> None:
        """Images were given up: "full", "expired" or "cancelled"."""

    def waited(self, seconds: float) -> None:
        """An image left the queue for a run."""


@dataclass(eq=False)
class _Entry(Generic[In, Out]):
    value: In
    arrived: float
    deadline: float
    future: "asyncio.Future[Out]"


class DynamicBatcher(Generic[In, Out]):
    """Collects values into batches and runs one batch at a time.

    All methods belong to one event loop; times are that loop's (`loop.time()`), in seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        max_batch_size: int,
        max_queue_delay_ms: float,
        queue_capacity: int,
        expected_run_s: float,
        observer: BatchObserver,
    ) -> None:
        """Make a batcher; `start` sets it to work.

        Args:
            run: gets 1 to `max_batch_size` values and gives as many results, in order. Whatever it
                raises fails that batch.
            max_batch_size: values in one run at most.
            max_queue_delay_ms: how long the first entry waits for others.
            queue_capacity: images that may be in: decoding, waiting or running.
            expected_run_s: how long a run takes, before any was seen.
            observer: is told what happens.
        """
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_ms / 1000
        self._capacity = queue_capacity
        # Streams together hold at most half, so that they never shut the others out.
        self._stream_capacity = queue_capacity // 2
        self._run_s = expected_run_s
        self._observer = observer
        self._held = 0
        self._held_by_streams = 0
        self._turns: deque[tuple[int, asyncio.Future[None]]] = deque()
        # A dict keeps the order of arrival and lets a caller who leaves take its entry out at once.
        self._queue: dict[int, _Entry[In, Out]] = {}
        self._keys = itertools.count()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Set the batcher to work on the running loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="batcher")

    async def close(self) -> None:
        """Take nothing more, finish what is queued, and end."""
        self._closing = True
        self._changed.set()
        if self._worker is not None:
            await self._worker

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Let a request's images in until the block ends, or refuse them at once.

        Raises:
            Overloaded: there is no room now.
            InvalidRequest: there could never be.
            Unavailable: the batcher is closing.
        """
        self._check_open()
        if images > self._capacity:
            raise InvalidRequest(
                f"the request has {images} images; at most {self._capacity} fit in the queue"
            )
        if self._held + images > self._capacity:
            self._observer.shed("full", images)
            raise Overloaded(
                f"the queue has room for {self._capacity - self._held} of its {self._capacity} images; "
                f"the request has {images}; try again later",
                retry_after_ms=1000 * self._run_s * self._held / self._max_batch_size,
            )
        self._hold(images)
        try:
            yield
        finally:
            self._hold(-images)

    @asynccontextmanager
    async def admit_stream(self, images: int, deadline: float) -> AsyncIterator[None]:
        """Let one message of a stream in until the block ends, as soon as there is room, in turn.

        Raises:
            DeadlineExpired: there was no room in time.
            InvalidRequest: there could never be.
            Unavailable: the batcher is closing.
        """
        self._check_open()
        if images > self._stream_capacity:
            raise InvalidRequest(
                f"the message has {images} images; at most {self._stream_capacity} fit in a stream's queue"
            )
        if self._turns or not self._has_stream_room(images):
            await self._wait_for_turn(images, deadline)
        else:
            self._hold_for_stream(images)
        try:
            yield
        finally:
            self._hold_for_stream(-images)

    async def submit(self, value: In, deadline: float) -> Out:
        """Queue one admitted value and wait for its result.

        Args:
            value: handed to `run`.
            deadline: loop time.

        Raises:
            DeadlineExpired: it passed before the result came; a value still queued isn't run.
            InferenceFailed: the run failed.
            Unavailable: the batcher is closing.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        entry: _Entry[In, Out] = _Entry(value, loop.time(), deadline, loop.create_future())
        key = next(self._keys)
        self._queue[key] = entry
        self._changed.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await entry.future
        except TimeoutError:
            self._observer.shed("expired", 1)
            raise DeadlineExpired("the deadline passed before the image's result was there") from None
        except asyncio.CancelledError:
            self._observer.shed("cancelled", 1)
            raise
        finally:
            self._queue.pop(key, None)

    # The door.

    def _check_open(self) -> None:
        if self._closing or self._worker is None or self._worker.done():
            raise Unavailable("the server is draining; try another one")

    def _hold(self, images: int) -> None:
        """Count images in, or out where negative."""
        self._held += images
        self._observer.depth(self._held)
        if images < 0:
            self._give_turns()

    def _hold_for_stream(self, images: int) -> None:
        self._held_by_streams += images
        self._hold(images)

    def _has_stream_room(self, images: int) -> bool:
        return (
            self._held_by_streams + images <= self._stream_capacity and self._held + images <= self._capacity
        )

    def _give_turns(self) -> None:
        while self._turns and self._has_stream_room(self._turns[0][0]):
            images, turn = self._turns.popleft()
            if not turn.done():
                self._hold_for_stream(images)
                turn.set_result(None)

    async def _wait_for_turn(self, images: int, deadline: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((images, turn))
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was given in the same instant
                self._hold_for_stream(-images)
            else:
                self._turns.remove((images, turn))
                self._give_turns()
            if isinstance(error, TimeoutError):
                self._observer.shed("expired", images)
                raise DeadlineExpired("the deadline passed while the message waited for room") from None
            raise

    # The worker.

    async def _work(self) -> None:
        while await self._wait_for_first():
            await self._wait_for_more()
            if batch := self._take():
                await self._run_batch(batch)

    async def _wait_for_first(self) -> bool:
        """Whether there is a first entry; False once the batcher is closing and empty."""
        while not self._queue:
            if self._closing:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _wait_for_more(self) -> None:
        loop = asyncio.get_running_loop()
        while 0 < len(self._queue) < self._max_batch_size and not self._closing:
            entries = self._queue.values()
            window_end = next(iter(entries)).arrived + self._max_queue_delay_s
            latest_start = min(entry.deadline for entry in entries) - _RUN_MARGIN * self._run_s
            start = min(window_end, latest_start)
            if loop.time() >= start:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout_at(start):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Entry[In, Out]]:
        """The oldest entries that somebody still waits for; the dead are taken out on the way."""
        now = asyncio.get_running_loop().time()
        batch: list[_Entry[In, Out]] = []
        while self._queue and len(batch) < self._max_batch_size:
            entry = self._queue.pop(next(iter(self._queue)))
            if entry.future.done():
                continue
            if entry.deadline <= now:
                entry.future.set_exception(TimeoutError())  # `submit` says it to the caller
                continue
            self._observer.waited(now - entry.arrived)
            batch.append(entry)
        return batch

    async def _run_batch(self, batch: list[_Entry[In, Out]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            results = await self._run([entry.value for entry in batch])
            if len(results) != len(batch):
                raise InferenceFailed(f"the run gave {len(results)} results for {len(batch)} images")
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails this batch and no other
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(_failure(error))
            return
        # The slowest of late, forgotten slowly: a late answer costs more than a smaller batch.
        self._run_s = max(loop.time() - started, 0.9 * self._run_s)
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)


def _failure(error: Exception) -> InferenceFailed:
    """An instance for each caller: raising one adds a traceback to it."""
    return InferenceFailed(str(error) if isinstance(error, RequestError) else f"the run failed: {error!r}")
