"""The part of the confusion matrix that can be read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluate.evaluation import Evaluation

MAX_ALL = 25
# Of more classes at most these many: those of the pairs that are confused most.
MAX_SOME = 20


@dataclass(frozen=True)
class Cell:
    """Images of one class that were given one class.

    Attributes:
        images: how many.
        share: of the row's images, 0 to 1.
        is_right: whether the two classes are the same.
    """

    images: int
    share: float
    is_right: bool


@dataclass(frozen=True)
class Grid:
    """Rows are true classes, columns given ones.

    Attributes:
        labels: of rows and columns.
        rows: a list of cells for each label.
        others: for each label how many of its images were given a class that isn't shown.
        is_part: whether there are more classes.
    """

    labels: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    others: tuple[int, ...]
    is_part: bool


def confusion_grid(found: Evaluation) -> Grid | None:
    """All classes up to `MAX_ALL`, else those that are confused most; None where none are to be shown."""
    if found.targets.ndim == 2 or not found.classes:
        return None
    classes = len(found.labels)
    shown = np.arange(classes) if classes <= MAX_ALL else _most_confused(found)
    if not len(shown):
        return None
    place = np.full(classes, -1)
    place[shown] = np.arange(len(shown))
    rows, columns = place[found.targets], place[found.predicted]
    inside = (rows >= 0) & (columns >= 0)
    matrix = np.zeros((len(shown), len(shown)), np.int64)
    np.add.at(matrix, (rows[inside], columns[inside]), 1)
    totals = np.bincount(found.targets, minlength=classes)[shown]
    return Grid(
        labels=tuple(found.labels[index] for index in shown),
        rows=tuple(_cells(matrix[row], totals[row], row) for row in range(len(shown))),
        others=tuple((totals - matrix.sum(axis=1)).tolist()),
        is_part=classes > len(shown),
    )


def _cells(counts: NDArray[np.int64], total: int, row: int) -> tuple[Cell, ...]:
    return tuple(
        Cell(images, images / total if total else 0.0, column == row)
        for column, images in enumerate(counts.tolist())
    )


def _most_confused(found: Evaluation) -> NDArray[np.int64]:
    """The classes of the pairs that are mixed up most often, in the order of the labels."""
    predicted = found.predicted
    wrong = np.flatnonzero(found.targets != predicted)
    pairs, counts = np.unique(
        np.stack([found.targets[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    chosen: set[int] = set()
    for pair in pairs[np.argsort(-counts, kind="stable")].tolist():
        if len(chosen | set(pair)) > MAX_SOME:
            break
        chosen |= set(pair)
    return np.array(sorted(chosen), np.int64)
