"""The last lines of a benchmark: each figure with its bar, and the exit status they make."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value that should be at least its bar.

    Attributes:
        name: with the unit in it.
        value: as measured.
        bar: the least that will do.
    """

    name: str
    value: float
    bar: float


def conclude(*figures: Figure) -> None:
    """Print the figures and exit: 0 where every bar holds, else 1."""
    for figure in figures:
        print(f"figure: {figure.name} {figure.value:.3f} >= {figure.bar}")
    sys.exit(0 if all(figure.value >= figure.bar for figure in figures) else 1)
