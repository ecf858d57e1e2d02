"""From one caller to 1,024: throughput and latency, as a plot.

    python -m benchmarks.cost_curve

ResNet-50 int8 by OpenVINO, one JPEG a call, callers in a closed loop; server on one core, client on another.
More callers than fill two batches only wait; the bar is that they cost no throughput.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe

BAR = 0.9
_MOST_CALLERS_POWER = 10
PLOT = Path(__file__).parent / "plots" / "cost_curve.png"


@dataclass(frozen=True)
class Point:
    """One number of callers."""

    callers: int
    images_per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure, print, draw, exit by the bar."""
    parser = resnet50.options(__doc__, engine=True)
    parser.add_argument("--point-s", type=float, default=5.0)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    package, photos = resnet50.find(options)
    server_core, client_core = cores()
    workload = loads.photo_messages(photos)
    least_s = 1.0 if options.quick else options.point_s

    async def measure() -> list[Point]:
        points: list[Point] = []
        for power in range(_MOST_CALLERS_POWER + 1):
            callers = 1 << power
            # Once around: a caller's first answer comes when all the others have had theirs.
            around_s = 1.2 * callers / points[-1].images_per_s if points else 0.0
            recording = await loads.closed(
                server, workload, callers, max(least_s, around_s), warm_up_s=0.5 + around_s
            )
            p50_ms, p99_ms = loads.p_ms(recording, 50.0), loads.p_ms(recording, 99.0)
            points.append(Point(callers, loads.rate(recording), p50_ms, p99_ms))
            print(
                f"{callers} callers: {points[-1].images_per_s:.1f}/s, "
                f"p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"
            )
        return points

    with resnet50.served(package, options.execution_provider, options.precision, core=server_core) as server:
        os.sched_setaffinity(0, {client_core})
        points = loads.run(measure())

    best = max(point.images_per_s for point in points)
    ratio = points[-1].images_per_s / best
    title = f"ResNet-50 {options.precision} by {options.execution_provider}, JPEG in, one core"
    if options.plot != PLOT or not options.quick:
        _draw(points, title, options.plot)
        print(f"drawn: {options.plot}")
    print(f"ratio {ratio:.3f}: {points[-1].images_per_s:.1f} images/s with 1,024 callers, {best:.1f} at best")
    print(f"{package.describe()}\n{title}; {describe()}")
    conclude(Figure("cost_curve_1024_callers_ratio", ratio, BAR), quick=options.quick)


def _draw(points: list[Point], title: str, path: Path) -> None:
    drawing = Drawing(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(drawing)
    left = drawing.subplots()
    right = left.twinx()
    callers = [point.callers for point in points]
    lines = [
        *left.plot(
            callers, [point.images_per_s for point in points], "o-", color="#1b7f4b", label="images/s"
        ),
        *right.plot(callers, [point.p99_ms for point in points], "s--", color="#c0392b", label="p99"),
        *right.plot(callers, [point.p50_ms for point in points], "^:", color="#d98a00", label="p50"),
    ]
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.set_xticks(callers)
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.set_xlabel("callers in a closed loop")
    left.set_ylabel("images per second")
    right.set_ylabel("latency, ms")
    left.grid(visible=True, alpha=0.25)
    left.legend(handles=lines, loc="center right")
    left.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
