"""The dynamic batcher: many callers' values → few runs. It knows no model, only a function to call.

Rules, each with its test:
  1. A batch runs when it is full, when its first entry has waited `max_queue_delay_ms`, or when an
     entry's deadline allows no more waiting.
  2. Entries whose caller left or whose deadline passed are dropped before the run, not after it.
  3. A caller who leaves never takes its mates along; a run that fails fails its own batch only.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import DeadlineExpired, InferenceFailed, RequestError, Unavailable

# A run that starts just in time by the clock ends just too late for its caller.
_RUN_MARGIN = 1.25

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False)
class _Entry(Generic[In, Out]):
    value: In
    arrived: float
    deadline: float
    future: "asyncio.Future[Out]"

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            # Read once, so that asyncio doesn't complain where the caller leaves in this instant.
            self.future.exception()


class DynamicBatcher(Generic[In, Out]):
    """Collects values into batches and runs one batch at a time.

    All methods belong to one event loop; times are that loop's (`loop.time()`), in seconds. What bounds
    the queue is the door in front of it, `Admission`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        max_batch_size: int,
        max_queue_delay_ms: float,
        expected_run_s: float,
        on_wait: Callable[[float], None],
    ) -> None:
        """Make a batcher; `start` sets it to work.

        Args:
            run: gets 1 to `max_batch_size` values and gives as many results, in order. Whatever it
                raises fails that batch.
            max_batch_size: values in one run at most.
            max_queue_delay_ms: how long the first entry waits for others.
            expected_run_s: how long a run takes, before any was seen.
            on_wait: is told how long each value waited for its run, in seconds.
        """
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_ms / 1000
        self._run_s = expected_run_s
        self._on_wait = on_wait
        # A dict keeps the order of arrival and lets a caller who leaves take its entry out at once.
        self._queue: dict[int, _Entry[In, Out]] = {}
        self._keys = itertools.count()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> "asyncio.Task[None]":
        """Set the batcher to work on the running loop; the task ends when it is closed."""
        self._worker = asyncio.get_running_loop().create_task(self._work(), name="batcher")
        return self._worker

    async def close(self) -> None:
        """Take nothing more, finish what is queued, and end."""
        self._closing = True
        self._changed.set()
        if self._worker is not None:
            await self._worker

    def expected_wait_s(self, values: int) -> float:
        """How long so many values take at the latest pace, in seconds."""
        return self._run_s * values / self._max_batch_size

    async def submit(self, value: In, deadline: float) -> Out:
        """Queue one value and wait for its result.

        Args:
            value: handed to `run`.
            deadline: loop time.

        Raises:
            DeadlineExpired: it passed before the result came; a value still queued isn't run.
            InferenceFailed: the run failed.
            Unavailable: the batcher is closing.
        """
        if self._closing or self._worker is None or self._worker.done():
            raise Unavailable("the server is draining; try another one")
        loop = asyncio.get_running_loop()
        entry: _Entry[In, Out] = _Entry(value, loop.time(), deadline, loop.create_future())
        key = next(self._keys)
        self._queue[key] = entry
        self._changed.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await entry.future
        except TimeoutError:
            raise DeadlineExpired("the deadline passed before the image's result was there") from None
        finally:
            self._queue.pop(key, None)

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
                entry.fail(TimeoutError())  # `submit` says it to the caller
                continue
            self._on_wait(now - entry.arrived)
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
            reason = str(error) if isinstance(error, RequestError) else f"the run failed: {error!r}"
            for entry in batch:
                entry.fail(InferenceFailed(reason))  # an instance each: raising one adds a traceback to it
            return
        # The slowest of late, forgotten slowly: a late answer costs more than a smaller batch.
        self._run_s = max(loop.time() - started, 0.9 * self._run_s)
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)
