"""The page's plots, as SVG documents. Letters are drawn as shapes: no font is
needed to see them. Names of classes are never among them: they may be in any script."""

import io
from typing import TYPE_CHECKING

import numpy as np

from training.reliability import Reliability
from training.report.history import History, Series

if TYPE_CHECKING:  # slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
BLUE, ORANGE = "#1f6feb", "#d9730d"
_COLOURS = {"train": MUTED, "val": BLUE}


def curves(history: History, best_epoch: int | None = None) -> bytes:
    """Loss and score by epoch; the epoch of the weights is marked."""
    from matplotlib.ticker import MaxNLocator

    panels = [
        (series, name)
        for series, name in ((history.loss, "loss"), (history.score, history.score_name))
        if series
    ]
    figure = _figure(7.2 * len(panels), 3.4)
    for place, (lines, name) in enumerate(panels, 1):
        axes = _axes(figure, 1, len(panels), place)
        for series in lines:
            _line(axes, series)
        if best_epoch:
            axes.axvline(best_epoch, color=ORANGE, linewidth=1, linestyle=(0, (3, 3)), label="these weights")
        axes.set_xlabel("epoch")
        _title(axes, name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _line(axes: "Axes", series: Series) -> None:
    marker = "o" if len(series.epochs) == 1 else ""
    axes.plot(
        series.epochs,
        series.values,
        color=_COLOURS[series.name],
        linewidth=1.6,
        marker=marker,
        label=series.name,
    )


def reliability_diagram(before: Reliability, after: Reliability, temperature: float) -> bytes:
    """Share of right statements by what they said, before and after the temperature, above their number."""
    panels = [(before, "temperature 1")]
    if temperature != 1:
        panels.append((after, f"temperature {temperature:.3g}"))
    figure = _figure(6.4 * len(panels), 4.2)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(3.2, 1))
    most = max(int(measured.counts.max()) for measured, _ in panels)
    for column, (measured, title) in enumerate(panels):
        bins = len(measured.counts)
        middles = (np.arange(bins) + 0.5) / bins
        there = measured.counts > 0
        upper = _styled(figure.add_subplot(grid[0, column]))
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        upper.bar(
            middles[there], measured.accuracy[there], 0.9 / bins, color=BLUE, alpha=0.75, label="share right"
        )
        upper.hlines(
            measured.confidence[there],
            middles[there] - 0.45 / bins,
            middles[there] + 0.45 / bins,
            color=ORANGE,
            linewidth=2,
            label="mean probability given",
        )
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1.02)
        _title(upper, f"{title}: ECE {measured.expected_calibration_error:.2%}")
        upper.set_ylabel("share right")
        lower = _styled(figure.add_subplot(grid[1, column]))
        lower.bar(middles, measured.counts, 0.9 / bins, color=GRID, edgecolor=MUTED, linewidth=0.5)
        lower.set_xlim(0, 1)
        # One bin often holds nearly all; the others are to be seen too.
        lower.set_yscale("symlog", linthresh=1)
        lower.set_ylim(0, most * 2)
        lower.set_xlabel("probability that was given")
        lower.set_ylabel("number")
        upper.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize=8, loc="upper left")
    return _svg(figure)


def _figure(width_in: float, height_in: float) -> "Figure":
    # Not pyplot, which keeps every figure and may want a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _axes(figure: "Figure", rows: int, columns: int, place: int) -> "Axes":
    return _styled(figure.add_subplot(rows, columns, place))


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=10)


def _styled(axes: "Axes") -> "Axes":
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.xaxis.label.set(color=MUTED, size=9)
    axes.yaxis.label.set(color=MUTED, size=9)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    return axes


def _svg(figure: "Figure") -> bytes:
    from matplotlib import rc_context

    file = io.BytesIO()
    # The same run gives the same file: no date in it, and the same identifiers.
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "fovea"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return file.getvalue()
