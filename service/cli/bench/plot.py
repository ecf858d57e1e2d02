"""A run's result as a picture: the latency of the answers, and the calls over time."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from service.cli.bench.recorder import Latencies, Recording
from service.cli.bench.result import Result

_COLORS = {"ok": "#1b7f4b", "late": "#d98a00", "shed": "#3b6fb6", "errors": "#c0392b", "not_sent": "#888888"}
_LABELS = {
    "late": "late",
    "shed": "refused",
    "errors": "errors",
    "not_sent": "not sent",
}
_NINES = (50.0, 90.0, 99.0, 99.9, 99.99)
_TICKS_PER_HALVING = 20


def write_plot(result: Result, path: Path) -> None:
    """Write a PNG.

    Raises:
        OSError: the file can't be written.
    """
    whole = result.whole
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    deadline_ms = result.parameters.get("deadline_ms")
    _draw_latencies(left, whole, deadline_ms)
    _draw_rates(right, whole, in_time="inside the deadline" if deadline_ms else "answered")
    in_time = f", {whole.counts['ok'] / whole.duration_s:.1f}/s inside the deadline" if deadline_ms else ""
    ratio = "" if result.ratio is None else f", {result.ratio:.3f} of the floor"
    figure.suptitle(
        f"{result.parameters['method']}, {result.parameters['load']}: "
        f"{whole.answered / whole.duration_s:.1f} answers/s{in_time}{ratio}"
    )
    figure.savefig(path, dpi=120, format="png")


def _draw_latencies(axes: Axes, whole: Recording, deadline_ms: float | None) -> None:
    for name, latencies, color in (
        ("answered", whole.latencies, _COLORS["ok"]),
        ("refused", whole.refusals, _COLORS["shed"]),
    ):
        if latencies.count:
            axes.plot(*_by_percentile(latencies), label=f"{name} ({latencies.count})", color=color)
    if deadline_ms:
        axes.axhline(deadline_ms, color=_COLORS["late"], linestyle="--", label=f"deadline {deadline_ms:g} ms")
    axes.set_xscale("log")
    axes.set_yscale("log")
    positions = [100 / (100 - percentile) for percentile in _NINES]
    axes.set_xticks(positions, [f"{percentile:g}%" for percentile in _NINES])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency, ms")
    axes.set_title("Latency")
    axes.grid(visible=True, which="both", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _by_percentile(latencies: Latencies) -> tuple[list[float], list[float]]:
    """1 ÷ the share above it, and the latency in ms, in HdrHistogram's own steps."""
    places, values = [], []
    for item in latencies.histogram().get_percentile_iterator(_TICKS_PER_HALVING):
        if item.percentile_level_iterated_to < 100:
            places.append(100 / (100 - item.percentile_level_iterated_to))
            values.append(item.value_iterated_to / 1000)
    return places, values


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _draw_rates(axes: Axes, whole: Recording, *, in_time: str) -> None:
    starts = [at for at, _, _ in whole.timeline]
    lengths = [length for _, length, _ in whole.timeline]
    below = [0.0] * len(starts)
    for kind, color in _COLORS.items():
        if not whole.counts[kind]:
            continue
        rates = [counts[kind] / length for _, length, counts in whole.timeline]
        axes.bar(
            starts,
            rates,
            lengths,
            bottom=below,
            align="edge",
            color=color,
            label=in_time if kind == "ok" else _LABELS[kind],
        )
        below = [sum(pair) for pair in zip(below, rates, strict=True)]
    axes.set_xlim(0, whole.duration_s)
    axes.set_xlabel("seconds")
    axes.set_ylabel("calls per second")
    axes.set_title("Calls over time")
    axes.grid(visible=True, axis="y", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
