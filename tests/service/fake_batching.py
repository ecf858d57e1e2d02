"""A batcher at work on a fake clock, with instances that take the time they are told to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service.batching import DynamicBatcher, Run, Take
from service.errors import RequestError
from service.group import Entry, Group, Priority
from service.latency import LatencyTable

FOREVER = 1e5
# Time for a batch grows with it, as on a processor core; or hardly, as on a GPU.
CPU_S = {1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}
GPU_S = {1: 0.010, 2: 0.0102, 4: 0.0105, 8: 0.011}

# Three of four places filled are worth the run of four; five of eight are not.
UNEVEN_S = {1: 0.010, 2: 0.012, 4: 0.015, 8: 0.060}


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeInstance:
    """Copies the values `copy_s` after it was called, runs for `run_s(size)`, answers with their squares.

    Attributes:
        batches: what it ran.
        starts: when it copied each of them.
        fail_next: raised at the end of the next run.
    """

    def __init__(self, run_s: Callable[[int], float], copy_s: float = 0.0) -> None:
        self.run_s, self._copy_s = run_s, copy_s
        self.batches: list[list[int]] = []
        self.starts: list[float] = []
        self.fail_next: Exception | None = None

    async def __call__(self, take: Take[int]) -> Sequence[int | RequestError]:
        if self._copy_s:
            await asyncio.sleep(self._copy_s)
        values = list(take())
        if not values:
            return []
        self.batches.append(values)
        self.starts.append(now())
        await asyncio.sleep(self.run_s(len(values)))
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        return [value * value for value in values]


class House:
    """The batcher, its instances, and what it told of waits and runs."""

    def __init__(
        self,
        table_s: Mapping[int, float],
        batch_sizes: Sequence[int],
        max_queue_delay_ms: float,
        copies_s: Sequence[float],
        run_s: Callable[[int], float] | None,
    ) -> None:
        self.latency = LatencyTable(table_s, batch_sizes)
        self.instances = [FakeInstance(run_s or self.latency.warm_s, copy_s) for copy_s in copies_s]
        self.waits_s: list[float] = []
        self.runs: list[tuple[int, float]] = []
        self.batcher: DynamicBatcher[int, int] = DynamicBatcher(
            self.instances,
            batch_sizes=batch_sizes,
            latency=self.latency,
            max_queue_delay_ms=max_queue_delay_ms,
            on_wait=lambda waited_s, count: self.waits_s.extend([waited_s] * count),
            on_run=lambda images, at: self.runs.append((images, at)),
        )

    @property
    def batches(self) -> list[list[int]]:
        """Of the first instance."""
        return self.instances[0].batches

    @property
    def starts(self) -> list[float]:
        """Of the first instance."""
        return self.instances[0].starts

    def put(
        self, *values: int, deadline: float = FOREVER, priority: Priority = Priority.INTERACTIVE
    ) -> Group[int]:
        """One group of values, in the queue now."""
        group: Group[int] = Group(len(values), deadline, priority)
        for index, value in enumerate(values):
            self.batcher.put(Entry(group, index, value))
        return group

    async def ask(
        self, *values: int, deadline: float = FOREVER, priority: Priority = Priority.INTERACTIVE
    ) -> list[int | RequestError]:
        """One group of values, and what becomes of them."""
        return await self.put(*values, deadline=deadline, priority=priority).wait()


@asynccontextmanager
async def batching(
    table_s: Mapping[int, float] = CPU_S,
    *,
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    max_queue_delay_ms: float = 5.0,
    copies_s: Sequence[float] = (0.0,),
    run_s: Callable[[int], float] | None = None,
) -> AsyncIterator[House]:
    """A batcher with an instance for each of `copies_s`; closed at the end."""
    house = House(table_s, batch_sizes, max_queue_delay_ms, copies_s, run_s)
    house.batcher.start()
    yield house
    await house.batcher.close()


async def until(time: float) -> None:
    await asyncio.sleep(time - now())


async def all_of(*asked: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*asked))


async def steady_arrivals(house: House, count: int, gap_s: float) -> None:
    """Teaches the batcher how often something comes, and lets it finish."""
    for value in range(count):
        house.put(value)
        await asyncio.sleep(gap_s)


@asynccontextmanager
async def at_work(
    execute: Run[int, int], batch_sizes: Sequence[int] = (1, 2, 3)
) -> AsyncIterator[DynamicBatcher[int, int]]:
    """A batcher whose one instance is `execute`; closed at the end."""
    batcher = DynamicBatcher(
        [execute], batch_sizes=batch_sizes, latency=LatencyTable(CPU_S, batch_sizes), max_queue_delay_ms=0
    )
    batcher.start()
    yield batcher
    await batcher.close()
