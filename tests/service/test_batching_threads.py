"""The batcher with real threads: values are copied there while the loop adds entries."""

import asyncio
import operator
import random
from collections.abc import Sequence
from functools import partial

import pytest

from service.batching import DynamicBatcher, Run, Take
from service.group import Entry, Group
from service.latency import LatencyTable
from service.workers import WorkerPool

TIMEOUT_S = 30.0
REQUESTS = 3000


@pytest.mark.parametrize("prepared", [False, True])
async def test_nobody_is_lost_or_mixed_up_while_threads_copy_and_callers_come_and_leave(
    prepared: bool,
) -> None:
    random_source = random.Random(1)
    copied: list[int] = []
    pools = [WorkerPool(f"inference-{number}", threads=1, capacity=1) for number in range(2)]

    def execute(take: Take[int]) -> Sequence[int]:
        values = take(operator.pos) if prepared else take()
        copied.extend(values)  # atomic, also between threads
        return [-value for value in values]

    def instance(pool: WorkerPool) -> Run[int, int]:
        async def run(take: Take[int]) -> Sequence[int]:
            return await pool.run(partial(execute, take))

        return run

    batcher: DynamicBatcher[int, int] = DynamicBatcher(
        [instance(pool) for pool in pools],
        batch_sizes=range(1, 9),
        latency=LatencyTable({1: 1e-4, 8: 2e-4}, range(1, 9)),
        max_queue_delay_ms=1.0,
    )
    batcher.start()
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S

    async def call(value: int) -> int | None:
        group: Group[int] = Group(1, deadline)
        batcher.put(Entry(group, 0, value))
        if value % 5 == 0:
            await asyncio.sleep(0)
            group.leave()
            return None
        (result,) = await group.wait()
        assert isinstance(result, int)
        return result

    calls = []
    for value in range(REQUESTS):
        calls.append(asyncio.create_task(call(value)))
        if random_source.random() < 0.3:
            await asyncio.sleep(0)
    ends = await asyncio.gather(*calls)
    assert ends == [-value if value % 5 else None for value in range(REQUESTS)]
    await batcher.close()
    assert len(copied) == len(set(copied))
    assert {value for value in range(REQUESTS) if value % 5} <= set(copied)
    assert all(pool.close(TIMEOUT_S) for pool in pools)
