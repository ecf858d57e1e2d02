"""Closed and open loops over real gRPC, against servers that answer, refuse, stall and hang up."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from service.cli.bench import workload as workloads
from service.cli.bench.methods import METHODS, Fields
from service.cli.bench.recorder import Recording
from service.cli.bench.result import Result
from service.cli.bench.runner import Terms, closed_loop, open_loop
from service.cli.bench.traffic import Traffic
from service.cli.bench.wire import Wire
from service.cli.bench.workload import Workload
from tests.service.cli.bench.scripted_server import ScriptedServer, scripted_server

UNARY = workloads.of_pictures(METHODS["classify"], Fields(), [b"one", b"two"], 1)
STREAM = workloads.of_pictures(METHODS["classify-stream"], Fields(), [b"one", b"two"], 1)
BRIEF = Terms(duration_s=0.3, warm_up_s=0.1)


async def at_once(_: int, __: Any) -> None:
    """No script: the usual answer."""


async def closed(
    server: ScriptedServer, terms: Terms, callers: int, workload: Workload = UNARY, connections: int = 1
) -> Recording:
    async with Wire(server.address, workload.method, 1, connections=connections) as wire:
        return await closed_loop(wire, workload, terms, callers)


async def opened(
    server: ScriptedServer, terms: Terms, traffic: Traffic, workload: Workload = UNARY
) -> Recording:
    async with Wire(server.address, workload.method, 1, connections=2) as wire:
        times = traffic.times(terms.warm_up_s + terms.duration_s, seed=1)
        return await open_loop(wire, workload, terms, times)


@pytest.mark.parametrize("workload", [UNARY, STREAM], ids=["unary", "stream"])
async def test_a_closed_loop_counts_its_answers(workload: Workload) -> None:
    async with scripted_server(at_once) as server:
        recording = await closed(server, BRIEF, 3, workload)
    calls = len(server.remaining_s) + len(server.timeouts_ms)
    assert 0 < recording.counts["ok"] < calls  # the warm-up isn't counted
    assert recording.counts == {"ok": recording.answered}
    assert recording.latencies.count == recording.answered
    assert recording.loop_lag.count > 0


async def test_each_connection_is_one() -> None:
    async with scripted_server(at_once) as server:
        await closed(server, BRIEF, 6, connections=3)
    assert len(set(server.peers)) == 3


@pytest.mark.parametrize("workload", [UNARY, STREAM], ids=["unary", "stream"])
async def test_an_open_loop_makes_every_call_that_is_due(workload: Workload) -> None:
    traffic = Traffic("poisson", 300.0)
    due = [at for at in traffic.times(0.4, seed=1) if at >= 0.1]
    async with scripted_server(at_once) as server:
        recording = await opened(server, BRIEF, traffic, workload)
    assert recording.counts == {"ok": len(due)}
    assert recording.send_lag.count == len(due)


async def test_the_schedule_does_not_wait_for_answers() -> None:
    release = asyncio.Event()

    async def all_together(number: int, _: Any) -> None:
        if number == 39:
            release.set()
        await release.wait()

    async with scripted_server(all_together) as server:
        # No answer comes before the last call has been made.
        recording = await opened(server, Terms(0.4), Traffic("constant", 100.0))
    assert recording.counts == {"ok": 40}


async def test_latency_counts_from_when_a_call_was_due() -> None:
    stalled = False

    async def stall(_: int, __: Any) -> None:
        nonlocal stalled
        if not stalled:
            stalled = True
            time.sleep(0.3)  # noqa: ASYNC251 - the whole loop stands still, and the generator with it

    async with scripted_server(stall) as server:
        recording = await opened(server, Terms(0.3), Traffic("constant", 100.0))
    assert recording.counts["ok"] == 30
    # 20 calls were due in the first 0.2 s of the stall, and so had to wait 0.1 s or more. Counted from when
    # they could be sent, only the one that met the stall was slow.
    slow = 100 * (1 - 20 / 30)
    assert (recording.latencies.percentiles_ms(slow + 2)[0] or 0) > 90
    result = Result([recording], 1, {}, {}, {})
    assert result.document()["generator"]["kept_up"] is False
    assert "couldn't keep up with its schedule" in result.warnings()[0]


async def test_calls_beyond_the_cap_are_not_sent() -> None:
    release = asyncio.Event()

    async def hold(_: int, __: Any) -> None:
        await release.wait()

    async def let_go() -> None:
        await asyncio.sleep(3)  # long after the last call, due at 0.29 s
        release.set()

    async with scripted_server(hold) as server, asyncio.TaskGroup() as tasks:
        tasks.create_task(let_go())
        recording = await opened(server, Terms(0.3, max_in_flight=5), Traffic("constant", 100.0))
    assert recording.counts == {"ok": 5, "not_sent": 25}
    assert len(server.remaining_s) == 5


async def test_the_server_is_told_the_deadline() -> None:
    async with scripted_server(at_once) as server:
        await closed(server, Terms(0.2, deadline_s=7.0), 1)
        await closed(server, Terms(0.2, deadline_s=7.0), 1, STREAM)
    assert all(remaining is not None and 0 < remaining < 7.1 for remaining in server.remaining_s)
    assert set(server.timeouts_ms) == {7000}


async def test_callers_who_never_cancel_keep_it_to_themselves() -> None:
    async def slowly(_: int, __: Any) -> None:
        await asyncio.sleep(0.05)

    terms = Terms(0.3, deadline_s=0.02, never_cancel=True)
    async with scripted_server(slowly) as server:
        unary = await closed(server, terms, 2)
        stream = await closed(server, terms, 2, STREAM)
    # gRPC for Python shows a missing deadline as one in the far future.
    assert all(remaining is None or remaining > 1e6 for remaining in server.remaining_s)
    assert set(server.timeouts_ms) == {0}
    assert server.cancelled == 0
    for recording in (unary, stream):
        assert recording.counts == {"late": recording.answered}
        assert recording.answered > 0


async def test_who_gives_up_is_late_and_leaves() -> None:
    async def never(_: int, __: Any) -> None:
        await asyncio.sleep(60)

    async with scripted_server(never) as server:
        recording = await opened(server, Terms(0.2, deadline_s=0.5), Traffic("constant", 50.0))
        # The server learns of it a little later than the caller, and stops without waiting for handlers.
        async with asyncio.timeout(30):
            while server.cancelled < 10:  # noqa: ASYNC110 - a count that the server keeps
                await asyncio.sleep(0.01)
    assert recording.counts == {"late": 10}
    assert (recording.answered, recording.latencies.count, recording.accepted.count) == (0, 0, 10)
    assert server.cancelled == 10


@pytest.mark.parametrize("workload", [UNARY, STREAM], ids=["unary", "stream"])
async def test_patience_ends_too(workload: Workload) -> None:
    async def never(_: int, __: Any) -> None:
        await asyncio.sleep(60)

    terms = Terms(0.3, deadline_s=0.01, never_cancel=True, patience_s=0.1)
    async with scripted_server(never) as server:
        recording = await closed(server, terms, 1, workload)
    assert set(recording.counts) == {"late"}
    assert "no longer waited for" in recording.examples["DEADLINE_EXCEEDED"]


async def test_a_refused_caller_comes_back_when_told() -> None:
    async def refuse(_: int, context: Any) -> None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "150"),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")

    async with scripted_server(refuse) as server:
        recording = await closed(server, Terms(0.4), 2)
    assert recording.counts == {"shed": recording.refusals.count}
    # 0, 0.15 and 0.3 s; a caller who came back at once would have made hundreds of calls.
    assert len(server.remaining_s) <= 6


async def test_errors_are_counted_by_code() -> None:
    async def fail(number: int, context: Any) -> None:
        if number % 2:
            await context.abort(grpc.StatusCode.INTERNAL, "broken")

    async with scripted_server(fail) as server:
        recording = await opened(server, Terms(0.2), Traffic("constant", 100.0))
    assert recording.counts == {"ok": 10, "errors": 10}
    assert recording.errors == {"INTERNAL": 10}
    assert recording.examples == {"INTERNAL": "broken"}


async def test_a_broken_stream_is_opened_again() -> None:
    async def hang_up(number: int, context: Any) -> None:
        if number % 5 == 4:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    async with scripted_server(hang_up) as server:
        recording = await closed(server, Terms(1.5), 1, STREAM)
    assert recording.counts["ok"] > 4
    assert recording.errors["UNAVAILABLE"] >= 1
    assert len(server.peers) >= 2


async def test_no_server_at_all_is_an_error_of_each_call() -> None:
    async with scripted_server(at_once) as server:
        pass
    recording = await closed(server, Terms(0.2), 1)
    assert set(recording.errors) == {"UNAVAILABLE"}
    assert recording.answered == 0
