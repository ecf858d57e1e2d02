"""Rounds of load from `fovea bench`'s own generator, for benchmarks that take several in turns."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from benchmarks.pinned import PinnedProcess
from benchmarks.resnet50 import Package
from service.cli.bench import workload as workloads
from service.cli.bench.floor_process import FloorSetup
from service.cli.bench.methods import METHODS, Fields
from service.cli.bench.payload import Size
from service.cli.bench.pictures import read_pictures
from service.cli.bench.recorder import Recording
from service.cli.bench.run import Plan, load_once
from service.cli.bench.workload import Workload

T = TypeVar("T")
# More than a thousand callers wait in a queue, so that none is refused for a wait that is too long.
_PATIENCE_S = 300.0
# What a caller gives a call, in milliseconds, who uses the client package and says nothing.
CLIENT_DEADLINE_MS = 30_000.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the generator uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def photo_messages(
    photos: Sequence[Path], method: str = "classify", per_message: int = 1, raw: Size | None = None
) -> Workload:
    """Messages of the photographs for the server's default model."""
    pictures = read_pictures(photos, raw, workloads.MAX_TOTAL_BYTES)
    return workloads.of_pictures(METHODS[method], Fields(), pictures, per_message)


async def closed(
    server: PinnedProcess,
    workload: Workload,
    callers: int,
    duration_s: float,
    warm_up_s: float = 1.0,
    deadline_ms: float | None = None,
) -> Recording:
    """Callers in a closed loop.

    Args:
        server: that they call.
        workload: what they send.
        callers: how many.
        duration_s: measured, after
        warm_up_s: of the same.
        deadline_ms: of each call; None: long beyond the longest wait.

    Raises:
        SystemExit: a call failed: then there is no figure.
    """
    plan = Plan(
        server.address, method=workload.method.name, callers=callers, duration_s=duration_s,
        warm_up_s=warm_up_s, patience_s=_PATIENCE_S, deadline_ms=deadline_ms,
    )  # fmt: skip
    recording = await load_once(plan, workload)
    if recording.counts.keys() - {"ok"}:
        raise SystemExit(
            f"not measured: of {recording.offered} calls {dict(recording.counts)}; {recording.examples}"
        )
    return recording


def floor_of(
    package: Package,
    photos: Sequence[Path],
    *,
    provider: str,
    precision: str,
    batch_size: int,
    cores: Sequence[int],
    raw: Size | None = None,
) -> FloorSetup:
    """The floor of a package on some cores, with a thread for each."""
    return FloorSetup(
        package.folder, provider, precision, batch_size, len(cores), photos, raw=raw, cores=cores
    )


def rate(recording: Recording, per_message: int = 1) -> float:
    """Images answered per second.

    Raises:
        SystemExit: none were: the round was too short.
    """
    if not recording.answered:
        raise SystemExit(f"not measured: nothing was answered in {recording.duration_s:g} s")
    return recording.answered * per_message / recording.duration_s


def p_ms(recording: Recording, percentile: float) -> float:
    """A percentile of the answers' latency, in ms."""
    found = recording.latencies.percentiles_ms(percentile)[0]
    if found is None:
        raise SystemExit("not measured: nothing was answered")
    return found
