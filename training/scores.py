"""How good the logits for labelled images are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.probabilities import blocks

MAX_CONFUSIONS = 100
# Of fewer classes accuracy@5 would be 1 whatever a model says.
MIN_CLASSES_OF_TOP5 = 6


@dataclass(frozen=True)
class ClassScores:
    """One class.

    Attributes:
        label: its name.
        precision: share right of the images that were given it; 0 where none were.
        recall: share of its images that were given it; 0 where it has none.
        f1: harmonic mean of the two; 0 where both are 0.
        support: its images.
        predicted: images that were given it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    label: str
    predicted: str
    images: int


def ranks(logits: NDArray[np.float32], targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many classes stand before the right one, int64 [images]; of equal ones the lower index is first.

    Args:
        logits: float32 [images, classes].
        targets: int64 [images].
    """
    before = np.empty(len(logits), np.int64)
    columns = np.arange(logits.shape[1])
    for rows in blocks(logits):
        own = logits[rows][np.arange(len(targets[rows])), targets[rows]][:, None]
        ahead = (logits[rows] > own) | ((logits[rows] == own) & (columns < targets[rows][:, None]))
        before[rows] = ahead.sum(axis=1)
    return before


def accuracy_at(before: NDArray[np.int64], k: int) -> float:
    """Share of images whose class is among the first k; nan where there are none."""
    return float((before < k).mean()) if len(before) else float("nan")


def class_scores(
    predicted: NDArray[np.bool_] | NDArray[np.int64],
    targets: NDArray[np.integer[Any]],
    labels: tuple[str, ...],
) -> list[ClassScores]:
    """Precision, recall and F1 of every class.

    Args:
        predicted: int64 [images], or bool [images, classes] where classes may hold together.
        targets: of the same shape.
        labels: of the classes.
    """
    classes = len(labels)
    if targets.ndim == 1:
        support = np.bincount(targets, minlength=classes)
        given = np.bincount(predicted, minlength=classes)
        hits = np.bincount(targets[predicted == targets], minlength=classes)
    else:
        support, given = targets.astype(np.int64).sum(axis=0), predicted.astype(np.int64).sum(axis=0)
        hits = ((predicted > 0) & (targets > 0)).sum(axis=0)
    return [
        ClassScores(
            label=label,
            precision=_share(hit, many),
            recall=_share(hit, own),
            f1=_share(2 * hit, own + many),
            support=own,
            predicted=many,
        )
        for label, hit, own, many in zip(labels, hits.tolist(), support.tolist(), given.tolist(), strict=True)
    ]


def confusion_matrix(
    predicted: NDArray[np.int64], targets: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Images by their class (row) and the class they were given (column), int64 [classes, classes]."""
    counts = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def most_confused(
    predicted: NDArray[np.int64],
    targets: NDArray[np.integer[Any]],
    labels: tuple[str, ...],
    most: int = MAX_CONFUSIONS,
) -> list[Confusion]:
    """The pairs of classes that were mixed up most often, most often first.

    Needs no matrix, so any number of classes will do.
    """
    wrong = predicted != targets
    pairs, counts = np.unique(targets[wrong] * len(labels) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        Confusion(labels[pairs[i] // len(labels)], labels[pairs[i] % len(labels)], int(counts[i]))
        for i in order
    ]


def average_precisions(logits: NDArray[np.float32], targets: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Of each class that may hold with others, float64 [classes]; nan where no image or every image has it.

    The mean of the precisions at each image that has the class, in the order of the logits (area under
    the precision-recall curve without interpolation, as scikit-learn defines it).
    """
    from sklearn.metrics import average_precision_score

    positives = (targets > 0).sum(axis=0)
    varies = (positives > 0) & (positives < len(targets))
    return np.array(
        [
            average_precision_score(targets[:, i], logits[:, i]) if varies[i] else np.nan
            for i in range(targets.shape[1])
        ]
    )


def mean_average_precision(logits: NDArray[np.float32], targets: NDArray[np.integer[Any]]) -> float:
    """The mean of `average_precisions` over the classes that have one; nan where none has."""
    precisions = average_precisions(logits, targets)
    there = ~np.isnan(precisions)
    return float(precisions[there].mean()) if there.any() else float("nan")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
