"""The last lines of a benchmark: each figure with its bar, and the exit status they make."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value and its bar.

    Attributes:
        name: with the unit in it.
        value: as measured.
        bar: the least that will do, or the most; None: whatever it is will do.
        at_most: whether it is the most.
    """

    name: str
    value: float
    bar: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value is on the bar's good side."""
        if self.bar is None:
            return True
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def conclude(*figures: Figure, quick: bool = False) -> None:
    """Print the figures and exit: 0 where every bar holds, else 1.

    Of a quick run, which is too short for figures, they aren't called so, and hold no bar.
    """
    if quick:
        for figure in figures:
            print(f"smoke run: {figure.name} {figure.value:.3f}, not a figure")
        sys.exit(0)
    for figure in figures:
        side = "<=" if figure.at_most else ">="
        bar = "" if figure.bar is None else f" {side} {figure.bar:.3g}"
        print(f"figure: {figure.name} {figure.value:.3f}{bar}")
    sys.exit(0 if all(figure.holds for figure in figures) else 1)
