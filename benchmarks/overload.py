"""More calls than the server can answer: what it still answers inside the deadline.

    python -m benchmarks.overload

ResNet-50 int8 by OpenVINO, one JPEG a call, Poisson arrivals at 50, 80, 100, 150 and 300% of the capacity,
which is measured first in a closed loop; the schedule doesn't depend on the replies. Deadline 250 ms, or
4 × L(1) where that is more; callers who give up after it, and callers who never cancel (the server isn't told
their deadline; it has its own default, set to the same). Server on one core, client on another. The loads
that are compared with each other run in turns, and are added up. Percentiles are the worst of the loads from
100% on.
"""

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import PinnedProcess
from service.cli.bench.floor_process import FloorSetup, running_floor
from service.cli.bench.recorder import KINDS, Latencies, Recording, merged
from service.cli.bench.result import MAX_SEND_LAG_MS
from service.cli.bench.run import Plan, load_once
from service.cli.bench.workload import Workload

GOODPUT_BAR, REFUSAL_MS_BAR = 0.90, 10.0
# The first load step fills the queue and the allocators' pools once; beyond that nothing may grow.
MEMORY_GROWTH_MIB_BAR = 64.0
LEAST_DEADLINE_MS = 250.0
_LEAD_IN = (0.5, 0.8)
_COMPARED = (1.0, 1.5, 3.0)
_CAPACITY_CALLERS = 16
_SAMPLE_S = 0.2
PLOT = Path(__file__).parent / "plots" / "overload.png"


@dataclass
class Steps:
    """The rounds of one load, of one kind of callers.

    Attributes:
        recordings: one for each round.
        resident_bytes: the most that the server had in each.
    """

    recordings: list[Recording] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)

    @property
    def whole(self) -> Recording:
        """All rounds together."""
        return merged(self.recordings)

    @property
    def goodput(self) -> float:
        """Answers per second inside the deadline."""
        return self.whole.counts["ok"] / self.whole.duration_s


# Share of the capacity and whether callers never cancel → its steps.
Found = dict[tuple[float, bool], Steps]


def main() -> None:
    """Measure, print, draw, exit by the bars."""
    parser = resnet50.options(__doc__, engine=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-s", type=float, default=10.0)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (options.rounds, options.step_s)
    package, photos = resnet50.find(options)
    server_core, client_core = cores()
    workload = loads.photo_messages(photos)
    engine = (options.execution_provider, options.precision)
    setup = loads.floor_of(
        package, photos, provider=engine[0], precision=engine[1], batch_size=1, cores=[server_core]
    )
    alone_ms = loads.run(_alone_ms(setup, seconds=1.0 if options.quick else 4.0))
    deadline_ms = max(LEAST_DEADLINE_MS, 4 * alone_ms)

    async def measure() -> tuple[float, Found]:
        capacity = loads.rate(await loads.closed(server, workload, _CAPACITY_CALLERS, seconds, warm_up_s=2.0))
        print(f"capacity {capacity:.1f}/s; L(1) {alone_ms:.1f} ms; deadline {deadline_ms:.0f} ms")
        found: Found = defaultdict(Steps)
        plan = [(share, False) for share in _LEAD_IN]
        plan += [(share, never) for _ in range(rounds) for never in (False, True) for share in _COMPARED]
        for number, (share, never_cancel) in enumerate(plan):
            steps = found[share, never_cancel]
            load = Plan(
                server.address, rate=share * capacity, deadline_ms=deadline_ms, never_cancel=never_cancel,
                duration_s=seconds, warm_up_s=1.0,
            )  # fmt: skip
            await _step(server, load, workload, seed=number, steps=steps)
            _print_step(share, never_cancel, steps)
        return capacity, found

    with resnet50.served(
        package, *engine, "--default-timeout-ms", str(deadline_ms), core=server_core
    ) as server:
        os.sched_setaffinity(0, {client_core})
        capacity, found = loads.run(measure())

    title = f"ResNet-50 {engine[1]} by {engine[0]}, JPEG in, one core, deadline {deadline_ms:.0f} ms"
    if options.plot != PLOT or not options.quick:
        _draw(found, capacity, title, options.plot)
        print(f"drawn: {options.plot}")
    figures = figures_of(found, deadline_ms)
    print(
        "ratio of the goodput at 150% and 300% to that at 100%: "
        + ", ".join(f"{figure.value:.3f}" for figure in figures[:2])
        + "; of callers who never cancel: "
        + ", ".join(f"{figure.value:.3f}" for figure in figures[2:4])
    )
    print(f"goodput at 100%: {found[1.0, False].goodput / capacity:.3f} of the capacity of {capacity:.1f}/s")
    print(f"{package.describe()}\n{title}; {describe()}")
    conclude(*figures, quick=options.quick)


async def _alone_ms(setup: FloorSetup, seconds: float) -> float:
    """L(1): decoding and running one image, without a server."""
    async with running_floor(setup) as floor:
        found = (await floor.measure(seconds, 1, overlap=False)).batches.percentiles_ms(50.0)[0]
    assert found is not None
    return found


async def _step(server: PinnedProcess, plan: Plan, workload: Workload, seed: int, steps: Steps) -> None:
    async with _sampled(server) as resident_bytes:
        steps.recordings.append(await load_once(plan, workload, seed))
    steps.resident_bytes.append(max(resident_bytes))


@contextlib.asynccontextmanager
async def _sampled(server: PinnedProcess) -> AsyncIterator[list[int]]:
    found = [server.resident_bytes()]

    async def sample() -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            found.append(server.resident_bytes())

    sampling = asyncio.create_task(sample())
    try:
        yield found
    finally:
        sampling.cancel()


def figures_of(found: Found, deadline_ms: float) -> list[Figure]:
    """The figures of all steps; not a number, which holds no bar, where something didn't happen at all."""
    figures = []
    for never_cancel, name in ((False, ""), (True, "_never_cancel")):
        full = found[1.0, never_cancel].goodput or float("nan")
        for share in _COMPARED[1:]:
            ratio = found[share, never_cancel].goodput / full
            figures.append(Figure(f"overload_goodput_{share:.0%}{name}".replace("%", ""), ratio, GOODPUT_BAR))
    compared = [found[share, never] for share in _COMPARED for never in (False, True)]
    overloaded = [found[share, never] for share in _COMPARED[1:] for never in (False, True)]
    growth = max(max(each.resident_bytes) for each in compared) - found[1.0, False].resident_bytes[0]
    answered_ms = _worst_p99_ms(each.whole.latencies for each in compared)
    refused_ms = _worst_p99_ms(each.whole.refusals for each in overloaded)
    return [
        *figures,
        Figure("overload_answered_p99_ms", answered_ms, deadline_ms, at_most=True),
        Figure("overload_refusals_p99_ms", refused_ms, REFUSAL_MS_BAR, at_most=True),
        Figure("overload_memory_growth_mib", growth / 2**20, MEMORY_GROWTH_MIB_BAR, at_most=True),
    ]


def _worst_p99_ms(each: Iterable[Latencies]) -> float:
    """The highest; not a number, which holds no bar, where nothing was answered or nothing refused."""
    found = [latencies.percentiles_ms(99.0)[0] for latencies in each]
    return max((p99_ms for p99_ms in found if p99_ms is not None), default=float("nan"))


def _print_step(share: float, never_cancel: bool, steps: Steps) -> None:
    last = steps.recordings[-1]
    counts = ", ".join(f"{last.counts[kind]} {kind.replace('_', ' ')}" for kind in KINDS if last.counts[kind])
    p99_ms, refused_ms = last.latencies.percentiles_ms(99.0)[0], last.refusals.percentiles_ms(99.0)[0]
    lag_ms = last.send_lag.percentiles_ms(99.0)[0] or 0.0
    accepted = last.accepted.count or 1
    print(
        f"{share:.0%}{', never cancelled' if never_cancel else ''}: "
        f"goodput {last.counts['ok'] / last.duration_s:.1f}/s; {counts}; p99 {p99_ms or 0:.0f} ms; "
        f"late of the accepted {last.counts['late'] / accepted:.1%}; refusals' p99 {refused_ms or 0:.1f} ms; "
        f"server {steps.resident_bytes[-1] / 2**20:.0f} MiB"
        + ("" if lag_ms <= MAX_SEND_LAG_MS else f"; THE GENERATOR WAS LATE: p99 {lag_ms:.0f} ms"),
        flush=True,
    )


def _draw(found: Found, capacity: float, title: str, path: Path) -> None:
    drawing = Drawing(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for never_cancel, color, name in (
        (False, "#1b7f4b", "callers give up after the deadline"),
        (True, "#3b6fb6", "callers never cancel"),
    ):
        points = sorted(
            (steps.whole.offered / steps.whole.duration_s, steps.goodput)
            for (_, never), steps in found.items()
            if never == never_cancel
        )
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=name)
    most = max(_COMPARED) * capacity
    axes.plot(
        [0, capacity, most], [0, capacity, capacity], "--", color="#888888", label="capacity (closed loop)"
    )
    axes.set_xlim(0, most * 1.05)
    axes.set_ylim(0, capacity * 1.2)
    axes.set_xlabel("offered, calls per second (Poisson)")
    axes.set_ylabel("answered inside the deadline, per second")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(loc="lower right")
    axes.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
