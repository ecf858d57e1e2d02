"""The dynamic batcher: many callers' values → few runs. It knows no model, only functions to call.

Rules, each with its test:
  1. Earliest deadline first; interactive before bulk, which keeps a share (`EntryQueue`).
  2. An idle instance starts at once, unless waiting for the next arrival makes the mean answer faster;
     then never longer than `max_queue_delay_ms` from the first entry, never past the earliest
     deadline − L(b + 1), and not when nothing is coming.
  3. A dispatched batch takes more entries until its values are prepared and taken, where that makes nobody
     late.
  4. What can't be answered in time any more isn't run: entries whose caller left, whose deadline passed,
     or whose deadline L(1) can't meet while others could use the time.
  5. A caller who leaves never takes its mates along; a run that fails fails its own batch only.
  6. Every run that gives results updates L(b).
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from service.entry_queue import EntryQueue
from service.errors import DeadlineExpired, InferenceFailed, RequestError, Unavailable
from service.group import Entry
from service.latency import LatencyTable

In = TypeVar("In")
In_co = TypeVar("In_co", covariant=True)
Out = TypeVar("Out")
# The gap to the next arrival is a mean over some ten of them; past so many gaps nothing is coming.
_NEWEST_GAP_WEIGHT = 0.1
_PATIENCE_GAPS = 2.0


class Take(Protocol[In_co]):
    """Takes a batch's values in the thread that runs them; no more entries join from then on."""

    def __call__(self, prepare: Callable[[In_co], Any] | None = None, /) -> list[Any]:
        """The values of those that somebody still waits for, or what `prepare` makes of each.

        While they are prepared, others may join.
        """


Run = Callable[[Take[In]], Awaitable[Sequence[Out | RequestError]]]


class _Batch:
    """A dispatched batch: the loop adds entries until the run's thread takes their values."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.deadline = min(entry.group.deadline for entry in entries)
        self._lock, self._open = threading.Lock(), True

    def join(self, entry: Entry) -> bool:
        """Whether the entry could still come along."""
        with self._lock:
            if self._open:
                self.entries.append(entry)
                self.deadline = min(self.deadline, entry.group.deadline)
            return self._open

    def take(self, prepare: Callable[[Any], Any] | None = None, /) -> list[Any]:
        """See `Take`."""
        prepared = 0
        while True:
            with self._lock:
                if prepare is None or prepared == len(self.entries):
                    self._open = False
                    self.entries = [entry for entry in self.entries if not entry.group.over]
                    return [entry.value for entry in self.entries]
                new = self.entries[prepared:]
            for entry in new:
                # Who left lets go of the value: the entry itself is held until the run has ended.
                entry.value = None if entry.group.over else prepare(entry.value)
            prepared += len(new)


class DynamicBatcher(Generic[In, Out]):
    """Collects entries into batches and has each of its instances run one batch at a time.

    All methods belong to one event loop; times are seconds of `time.monotonic`, as the loop's own.
    What bounds the queue is the door in front of it, `Admission`.
    """

    def __init__(
        self,
        runs: Sequence[Run[In, Out]],
        *,
        batch_sizes: Sequence[int],
        latency: LatencyTable,
        max_queue_delay_ms: float,
        on_wait: Callable[[float, int], None] = lambda *_: None,
        on_run: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        """Make a batcher; `start` sets it to work.

        Args:
            runs: one function per instance. It is given `take`, calls it once, when it takes the values
                (in any thread), and gives as many results or errors, in order; there may be none to run.
                Whatever it raises fails that batch.
            batch_sizes: what really runs, ascending; the last is the maximum, a batch between two of
                them costs as much as the larger.
            latency: L(b), which the batcher asks and keeps up to date.
            max_queue_delay_ms: how long the first entry waits for others at most.
            on_wait: is told how long so many entries waited for their run, in seconds.
            on_run: is told how many entries a run ends, and when (loop time), before their groups are.
        """
        self._runs, self._sizes, self._latency = runs, list(batch_sizes), latency
        self._max_batch_size, self._exact_sizes = self._sizes[-1], frozenset(self._sizes)
        self._max_queue_delay_s = max_queue_delay_ms / 1000
        self._on_wait, self._on_run = on_wait, on_run
        self._queue = EntryQueue()
        self._open: set[_Batch] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._last_arrival, self._gap_s = float("-inf"), self._silence_s()

    def start(self) -> "asyncio.Task[None]":
        """Set the instances to work on the running loop; the task ends when the batcher is closed."""
        self._task = asyncio.get_running_loop().create_task(self._work_all(), name="batcher")
        return self._task

    async def close(self) -> None:
        """Take nothing more, finish what is queued, and end."""
        self._closing = True
        self._wake(len(self._idle))
        if self._task is not None:
            await self._task

    def put(self, *entries: Entry) -> None:
        """Queue entries that came together; their groups are told how they ended.

        One whose group is over is let go.

        Raises:
            Unavailable: the batcher is closed.
        """
        if self._closing or self._task is None or self._task.done():
            raise Unavailable("the server is draining; try another one")
        now = time.monotonic()
        gap = min(now - self._last_arrival, self._silence_s())
        self._last_arrival = now
        self._gap_s += _NEWEST_GAP_WEIGHT * (gap - self._gap_s)
        # After the first of those that came together the gaps are 0.
        self._gap_s *= (1 - _NEWEST_GAP_WEIGHT) ** (len(entries) - 1)
        for entry in entries:
            if entry.group.over:
                continue
            entry.arrived = now
            if self._open and not self._queue and any(self._join(batch, entry, now) for batch in self._open):
                self._on_wait(0.0, 1)
            else:
                self._queue.push(entry)
        self._wake(len(entries))

    def _join(self, batch: _Batch, entry: Entry, now: float) -> bool:
        """Whether the entry could still come along without making the others, or itself, late."""
        size = len(batch.entries) + 1
        return (
            size <= self._max_batch_size
            and self._worthwhile_size(size) == size
            and min(batch.deadline, entry.group.deadline) >= now + self._latency(size)
            and batch.join(entry)
        )

    def _silence_s(self) -> float:
        """A gap that no wait is worth; longer ones say nothing more about what comes next."""
        return 2 * self._latency(1)

    async def _work_all(self) -> None:
        async with asyncio.TaskGroup() as instances:
            for run in self._runs:
                instances.create_task(self._work(run))

    async def _work(self, run: Run[In, Out]) -> None:
        while True:
            if self._queue:
                now = time.monotonic()
                start = self._start_at(now)
                if start > now:
                    await self._wait(start)
                elif entries := self._choose(now):
                    if self._queue:
                        self._wake(1)  # what this batch leaves behind is another instance's
                    await self._run_batch(run, entries, now)
                    del entries  # and what they hold
            elif self._closing:
                return
            else:
                await self._wait(None)

    def _wake(self, instances: int) -> None:
        while self._idle and instances:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                instances -= 1

    async def _wait(self, until: float | None) -> None:
        """Until something changes, or that time comes."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._idle.append(waiter)
        timer = None if until is None else loop.call_at(until, _resolve, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._idle:
                self._idle.remove(waiter)

    def _start_at(self, now: float) -> float:
        """When the next batch should start, at the latest; now or earlier means at once."""
        waiting = len(self._queue)
        if waiting >= self._max_batch_size or self._closing:
            return now
        more_s = self._latency(waiting + 1)
        # Starting now, the next arrival waits for this run to end and then runs alone. Waiting for it
        # costs every entry the gap and the larger run's additional time. The smaller sum wins.
        cost_of_waiting = (waiting + 1) * (self._gap_s + more_s - self._latency(waiting))
        if cost_of_waiting >= self._latency(1):
            return now
        return min(
            min(entry.arrived for entry in self._queue) + self._max_queue_delay_s,
            self._queue.earliest_deadline() - more_s,
            self._last_arrival + _PATIENCE_GAPS * self._gap_s,
        )

    def _choose(self, now: float) -> list[Entry]:
        """Take the next batch out of the queue, dropping what can't be saved."""
        entries = self._queue.take(self._worthwhile_size(min(len(self._queue), self._max_batch_size)))
        earliest = min(entry.group.deadline for entry in entries)
        if earliest >= now + self._latency(len(entries)):
            return entries
        alone_s = self._latency(1)
        can_be_saved = [entry for entry in entries if entry.group.deadline >= now + alone_s]
        if not can_be_saved and not self._queue:
            # Nobody else could use the time; and if L(1) is wrong, only a run puts it right.
            # One request's: with one image less none of it would be answered.
            last = next((entry.group for entry in reversed(entries) if entry.group.deadline > now), None)
            can_be_saved = [entry for entry in entries if entry.group is last]
            return self._keep(entries, can_be_saved, can_be_saved)
        fitting = self._most_answers(can_be_saved, now)
        return self._keep(entries, can_be_saved, fitting)

    def _worthwhile_size(self, waiting: int) -> int:
        """As many as wait, or fewer where filling up to the next size costs more than it brings."""
        if waiting in self._exact_sizes or waiting < self._sizes[0]:
            return waiting
        smaller = max(size for size in self._sizes if size < waiting)
        padded_pays = waiting / self._latency(waiting) >= smaller / self._latency(smaller)
        return waiting if padded_pays else smaller

    def _most_answers(self, entries: list[Entry], now: float) -> list[Entry]:
        """The batch that answers the most per second in time: a larger one loses the most urgent."""
        best: list[Entry] = []
        best_rate = 0.0
        size = len(entries)
        while size:
            in_time = [entry for entry in entries if entry.group.deadline >= now + self._latency(size)][:size]
            rate = len(in_time) / self._latency(len(in_time)) if in_time else 0.0
            # Of equal ones the one with the most urgent: the others can wait.
            if rate > best_rate or (rate == best_rate and in_time[:1] != best[:1]):
                best, best_rate = in_time, rate
            size //= 2
        return best

    def _keep(self, taken: list[Entry], can_be_saved: list[Entry], batch: list[Entry]) -> list[Entry]:
        """Drop what can't be saved, put back what only this batch can't take."""
        saved, chosen = set(can_be_saved), set(batch)
        for entry in taken:
            if entry not in saved:
                entry.group.fail(
                    DeadlineExpired("the image's run would end after the deadline", "dropped_late")
                )
            elif entry not in chosen:
                self._queue.push(entry)
        return batch

    async def _run_batch(self, run: Run[In, Out], entries: list[Entry], started: float) -> None:
        for arrived, together in groupby(entries, _arrived):
            self._on_wait(started - arrived, len(list(together)))
        batch = _Batch(entries)
        self._open.add(batch)
        try:
            results = await run(batch.take)
            if len(results) != len(batch.entries):
                raise InferenceFailed(f"the run gave {len(results)} results for {len(batch.entries)} images")
            # What couldn't be prepared took its time and didn't run.
            if results and not any(isinstance(entry.value, RequestError) for entry in batch.entries):
                self._latency.observe(len(results), time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails this batch and no other
            reason = str(error) if isinstance(error, RequestError) else f"the run failed: {error!r}"
            # An instance each: raising one adds a traceback to it.
            results = [InferenceFailed(reason) for _ in batch.entries]
        finally:
            self._open.discard(batch)
        if batch.entries:
            self._on_run(len(batch.entries), time.monotonic())
        for entry, result in zip(batch.entries, results, strict=True):
            entry.group.set(entry.index, result)


_arrived = attrgetter("arrived")


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
