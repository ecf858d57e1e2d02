"""Losses by name: for classification, and those that learn distances between embeddings."""

import math
from typing import TYPE_CHECKING

from torch import Tensor

from training.errors import SettingError
from training.margin_loss import MarginLoss
from training.normalization import Normalization
from training.objective import BinaryCrossEntropy, CrossEntropy, Objective
from training.retrieval import EmbeddingCrossEntropy

if TYPE_CHECKING:
    from training.metric_learning import MetricLearning

ENTROPY_LOSSES = ("cross-entropy", "binary-cross-entropy")
CLASSIFICATION_LOSSES = (*ENTROPY_LOSSES, "margin")
METRIC_LOSSES = ("arcface", "subcenter-arcface", "proxy-anchor", "multi-similarity", "triplet")
LOSSES = (*CLASSIFICATION_LOSSES, *METRIC_LOSSES)
# Settings without which a loss would be a constant.
_POSITIVE = ("scale", "alpha", "beta", "sub_centers")


def make_objective(
    name: str,
    *,
    classes: int,
    embedding_dimension: int,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    task: str = "single_label",
    class_disjoint: bool = False,
    normalization: Normalization | None = None,
    **settings: float,
) -> Objective:
    """A loss, and the scores that choose the best checkpoint.

    What it draws at random (proxies) comes from PyTorch's global generator: seed that before.

    Args:
        name: one of `LOSSES`. "cross-entropy" of a multi-label task is the binary one.
        classes: that are trained on.
        embedding_dimension: the network's, with its projection.
        class_weights: float32 [classes]; None counts all alike. For classification.
        label_smoothing: share of the target spread over all classes. For classification.
        task: "single_label" or "multi_label".
        class_disjoint: whether val and test hold other classes than train: then classification, too, is
            scored by retrieval.
        normalization: what turns pixels into the network's input; None where it sees pixels from 0 to 1.
        settings: of another loss, by the names of its class's `defaults`, which hold for what isn't given;
            of the binary one "target_threshold".

    Raises:
        SettingError: the name or a setting isn't known, or the loss doesn't suit the task.
    """
    if name not in LOSSES:
        raise SettingError(f"--loss is {name!r}; expected one of {', '.join(LOSSES)}")
    if name in ENTROPY_LOSSES:
        binary = name == "binary-cross-entropy" or task == "multi_label"
        threshold = settings.pop("target_threshold", None) if binary else None
        if settings:
            raise SettingError(f"--loss {name} has no setting {', '.join(settings)}")
        if threshold is not None and not 0 <= threshold < 1:
            raise SettingError(
                f"--loss {name} has target_threshold={threshold:g}; expected at least 0 and below 1"
            )
        if class_disjoint:
            if name != "cross-entropy" or task != "single_label":
                raise SettingError(
                    f"--loss is {name} for a {task} task with held-out classes; expected cross-entropy or a "
                    "metric loss, and one label an image"
                )
            return EmbeddingCrossEntropy(class_weights, label_smoothing)
        if binary:
            return BinaryCrossEntropy(task, class_weights, label_smoothing, threshold)
        return CrossEntropy(class_weights, label_smoothing)
    if task != "single_label" and name != "margin":
        raise SettingError(
            f"--loss {name} wants one label an image; this data set's task is {task}, so expected "
            f"{' or '.join(CLASSIFICATION_LOSSES)}"
        )
    if class_weights is not None or label_smoothing:
        refused = "class weights" if class_weights is not None else "label smoothing"
        raise SettingError(f"--loss {name} has no {refused}; that is for {' and '.join(ENTROPY_LOSSES)}")
    if name == "margin":
        if class_disjoint:
            raise SettingError(
                "--loss margin learns a capsule for each class, and held-out classes have none; expected "
                "cross-entropy or a metric loss"
            )
        told = _settings(name, MarginLoss.defaults, settings)
        return MarginLoss(classes, embedding_dimension, told, task, normalization)
    kind = _metric_losses()[name]
    return kind(classes, embedding_dimension, _settings(name, kind.defaults, settings))


def _settings(name: str, defaults: dict[str, float], given: dict[str, float]) -> dict[str, float]:
    """All settings of a loss: those given, else its authors'; raises SettingError where one can't be used."""
    unknown = given.keys() - defaults.keys()
    if unknown:
        raise SettingError(
            f"--loss {name} has no setting {', '.join(sorted(unknown))}; it has "
            f"{', '.join(f'{key} = {value:g}' for key, value in defaults.items())}"
        )
    for key, value in given.items():
        whole = key != "sub_centers" or value == int(value)
        if not (value > 0 or (value == 0 and key not in _POSITIVE)) or not whole:
            kind_of_number = "a whole number" if key == "sub_centers" else "a number"
            least = "above 0" if key in _POSITIVE else "of at least 0"
            raise SettingError(f"--loss {name} has {key}={value:g}; expected {kind_of_number} {least}")
    return defaults | given


def loss_settings(text: str) -> dict[str, float]:
    """`margin=0.1,alpha=32` → the settings by name.

    Raises:
        SettingError: a part isn't NAME=NUMBER, or a name stands twice.
    """
    settings: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name or name in settings or not math.isfinite(number):
            raise SettingError(
                f"--loss-settings has {part!r}; expected each setting once, as NAME=NUMBER with commas "
                "between them, such as margin=0.1,alpha=32"
            )
        settings[name] = number
    return settings


def _metric_losses() -> "dict[str, type[MetricLearning]]":
    try:
        # Half a second to import, which classification needn't wait for.
        from training.metric_learning import KINDS
    except ModuleNotFoundError as error:
        if error.name != "pytorch_metric_learning":
            raise
        raise SettingError(
            "the losses that learn distances need pytorch-metric-learning, which isn't installed; "
            "pip install 'fovea-serving[train]'"
        ) from error
    return KINDS
