"""Fovea's own classes, the door and the batcher, on a clock that jumps from event to event."""

import asyncio
from collections.abc import Sequence

from benchmarks.simulation.scenario import QUEUE_CAPACITY, Machine, Outcome, Request
from service.admission import Admission, Load, Permit
from service.batching import DynamicBatcher, Take
from service.errors import DeadlineExpired, Overloaded
from service.forecast import Forecast
from service.group import Entry, Group
from service.latency import LatencyTable
from tests.fake_clock import run

_ONE = Load(images=1, size_bytes=1)


def fovea(machine: Machine, requests: Sequence[Request], seed: int) -> Outcome:
    """`Admission`, `Forecast`, `LatencyTable` and `DynamicBatcher` as the service puts them together."""
    return run(_serve(machine, requests, seed))


async def _serve(machine: Machine, requests: Sequence[Request], seed: int) -> Outcome:
    loop = asyncio.get_running_loop()
    outcome, run_s = Outcome(len(requests)), machine.run_times(seed)
    latency = LatencyTable(machine.table_s, machine.batch_sizes)
    forecast = Forecast(latency, machine.largest, instances=1)
    admission = Admission(Load(QUEUE_CAPACITY, QUEUE_CAPACITY), forecast)
    in_runs = 0

    async def execute(take: Take[None]) -> Sequence[None]:
        nonlocal in_runs
        values = take()
        if values:
            in_runs += len(values)
            await asyncio.sleep(run_s(len(values)))
        return values

    batcher: DynamicBatcher[None, None] = DynamicBatcher(
        [execute],
        batch_sizes=machine.batch_sizes,
        latency=latency,
        max_queue_delay_ms=machine.max_queue_delay_ms,
        on_run=lambda images, now: forecast.ran(images, now, admission.images - images),
    )
    batcher.start()

    async def call(request: Request, permit: Permit) -> None:
        group: Group[None] = Group(1, request.deadline)
        try:
            batcher.put(Entry(group, 0))
            await group.wait()
            outcome.answered_s.append(loop.time() - request.arrival)
        except DeadlineExpired:
            pass
        finally:
            permit.release()

    calls: set[asyncio.Task[None]] = set()
    for request in requests:
        await asyncio.sleep(request.arrival - loop.time())
        try:
            permit = admission.admit(_ONE, request.deadline)
        except Overloaded:
            outcome.refused += 1
        else:
            task = loop.create_task(call(request, permit))
            calls.add(task)
            task.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    await batcher.close()
    outcome.wasted = in_runs - len(outcome.answered_s)
    return outcome
