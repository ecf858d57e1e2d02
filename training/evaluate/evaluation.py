"""What an evaluation comes to: one set of numbers, however the network was run."""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.evaluate.data import LabelledPictures, matched
from training.evaluate.predictions import Advance, Predictions, gather
from training.evaluate.target import Target
from training.evaluate.ten_crop import TenCrop
from training.probabilities import nll, reaching
from training.reliability import Reliability, reliability
from training.scores import (
    MIN_CLASSES_OF_TOP5,
    ClassScores,
    Confusion,
    accuracy_at,
    class_scores,
    confusion_matrix,
    mean_average_precision,
    most_confused,
    ranks,
)

# Of more classes the matrix would be nothing but zeros and too large for a file; the pairs say it all.
MAX_MATRIX_CLASSES = 1000
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The numbers, and what they were made from.

    Attributes:
        target: kind, name, task and facts of what was asked.
        labels: its classes; those of the pictures where it has none.
        pictures: what it was asked about.
        predictions: what it said.
        targets: int64 [answered] or uint8 [answered, classes], of `labels`.
        temperature: what the target divides logits by.
        numbers: everything that is one number, by name.
        classes: each class's scores; empty for a target without classes.
        confusions: the pairs of classes mixed up most often; empty but for one label an image.
        matrix: int64 [classes, classes], true by predicted; None where there is none, or too many classes.
        before, after: reliability without and with the temperature; None for a target without classes.
        ten_crop: how ten crops of each picture were made; None where it was asked about as it is served.
    """

    target: dict[str, Any]
    labels: tuple[str, ...]
    pictures: LabelledPictures
    predictions: Predictions
    targets: NDArray[np.integer]
    temperature: float = 1.0
    numbers: dict[str, float] = field(default_factory=dict)
    classes: list[ClassScores] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    matrix: NDArray[np.int64] | None = None
    before: Reliability | None = None
    after: Reliability | None = None
    ten_crop: TenCrop | None = None

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the highest logit, int64 [answered]; of equal ones the first."""
        if self.predictions.logits is None:
            raise DataError("a model without classes predicts none")
        return np.asarray(self.predictions.logits.argmax(axis=1), np.int64)

    def document(self) -> dict[str, Any]:
        """As metrics.json holds it; what isn't a finite number is null."""
        failures = [
            {"image": self.pictures.name(failure.index), "reason": failure.reason}
            for failure in self.predictions.failures
        ]
        document: dict[str, Any] = {
            "target": self.target,
            "data": {
                "source": self.pictures.source,
                "images": len(self.pictures.split),
                "answered": len(self.targets),
                "failed": len(failures),
            },
            "ten_crop": None if self.ten_crop is None else self.ten_crop.document(),
            "temperature": self.temperature,
            "metrics": {name: _number(value) for name, value in self.numbers.items()},
            "failures": failures,
        }
        if self.pictures.left_out:
            document["left_out"] = [
                {"image": name, "reason": fault} for name, fault in self.pictures.left_out
            ]
        if self.before is not None and self.after is not None:
            document["calibration"] = {
                "bins": len(self.after.counts),
                "before": _bins(self.before),
                "after": _bins(self.after),
            }
            document["per_class"] = [asdict(scores) for scores in self.classes]
        if self.targets.ndim == 1 and self.classes:
            document["confusions"] = [asdict(confusion) for confusion in self.confusions]
            document["confusion_matrix"] = None if self.matrix is None else self.matrix.tolist()
        return document


def evaluate(
    target: Target,
    pictures: LabelledPictures,
    advance: Advance = lambda _images: None,
    threshold: float = DEFAULT_THRESHOLD,
    ten_crop: bool = False,
) -> Evaluation:
    """Ask about every picture and score the answers.

    Args:
        target: who is asked.
        pictures: labelled with names of classes that the target has.
        advance: told the number of images done.
        threshold: of several labels an image, the probability from which a class counts as said.
        ten_crop: whether to take the mean over ten crops of each picture.

    Raises:
        SettingError: the pictures' classes aren't the target's.
        TargetError: the target can't answer at all.
        DataError: not one picture was answered.
    """
    split = matched(pictures, target.labels, target.task)
    crops = target.ten_crop() if ten_crop else None
    predictions = gather(target, split, advance, crops)
    if not len(predictions.indices):
        reason = predictions.failures[0].reason if predictions.failures else "there are none"
        raise DataError(f"{pictures.source}: none of {len(split):,} images was answered; the first: {reason}")
    targets = split.labels[predictions.indices]
    who = {"kind": target.kind, "name": target.name, "task": target.task, **target.facts}
    labels = target.labels or pictures.classes
    found = Evaluation(who, labels, pictures, predictions, targets, ten_crop=crops)
    if predictions.logits is None:
        return replace(found, numbers=_retrieval(predictions, targets))
    return _scored(found, predictions.logits, target.temperature, threshold)


def _scored(
    found: Evaluation, logits: NDArray[np.float32], temperature: float, threshold: float
) -> Evaluation:
    targets, labels = found.targets, found.labels
    plain = logits if found.predictions.untempered is None else found.predictions.untempered
    before, after = reliability(plain, targets), reliability(logits, targets, temperature)
    calibration = {
        "nll": nll(logits, targets, temperature),
        "nll_before_temperature": nll(plain, targets),
        "ece": after.expected_calibration_error,
        "ece_before_temperature": before.expected_calibration_error,
    }
    matrix, confusions = None, []
    if targets.ndim == 2:
        scores = class_scores(reaching(logits, threshold, temperature), targets, labels)
        numbers = _multi_label_numbers(logits, targets, scores) | {"threshold": threshold}
    else:
        predicted, before_own = logits.argmax(axis=1), ranks(logits, targets)
        scores = class_scores(predicted, targets, labels)
        numbers = {"top1_accuracy": accuracy_at(before_own, 1), **_macro(scores)}
        if len(labels) >= MIN_CLASSES_OF_TOP5:
            numbers["top5_accuracy"] = accuracy_at(before_own, 5)
        confusions = most_confused(predicted, targets, labels)
        if len(labels) <= MAX_MATRIX_CLASSES:
            matrix = confusion_matrix(predicted, targets, len(labels))
    return replace(
        found,
        temperature=temperature,
        numbers=numbers | calibration | _retrieval(found.predictions, targets),
        classes=scores,
        confusions=confusions,
        matrix=matrix,
        before=before,
        after=after,
    )


def _multi_label_numbers(
    logits: NDArray[np.float32], targets: NDArray[np.integer], scores: list[ClassScores]
) -> dict[str, float]:
    hits = sum(round(one.recall * one.support) for one in scores)
    both = sum(one.support + one.predicted for one in scores)
    return {
        "mean_average_precision": mean_average_precision(logits, targets),
        **_macro(scores),
        "micro_f1": 2 * hits / both if both else 0.0,
    }


def _macro(scores: list[ClassScores]) -> dict[str, float]:
    """Means over the classes that have images here."""
    there = [one for one in scores if one.support]
    return {
        f"macro_{name}": float(np.mean([getattr(one, name) for one in there])) if there else float("nan")
        for name in ("precision", "recall", "f1")
    }


def _retrieval(predictions: Predictions, targets: NDArray[np.integer]) -> dict[str, float]:
    """Recall@k and mAP@R of the embeddings; nothing where no class has two images."""
    if targets.ndim == 2 or np.bincount(targets).max() < 2:
        return {}
    import torch

    from training.retrieval_metrics import retrieval_scores

    embeddings = torch.from_numpy(np.ascontiguousarray(predictions.embeddings))
    return retrieval_scores(embeddings, torch.from_numpy(targets.astype(np.int64))).named()


def _bins(measured: Reliability) -> dict[str, Any]:
    return {
        "counts": measured.counts.tolist(),
        "confidence": [_number(value) for value in measured.confidence.tolist()],
        "accuracy": [_number(value) for value in measured.accuracy.tolist()],
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
