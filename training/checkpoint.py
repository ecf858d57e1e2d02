"""Checkpoints: what a run needs to be scored, exported or gone on with, in one file written whole or not."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import RunError, WeightsError
from training.weights import load
from training.whole_file import whole_file


@dataclass(frozen=True)
class Checkpoint:
    """A network, and what is known of it.

    Attributes:
        model: state dict of what is scored and exported: the averaged weights where the run averages them.
        epoch: epochs done, from 1; 0 before the end of the first.
        step: optimizer steps done.
        metrics: the scores on val of just these weights; none between two epochs' ends.
        selects_by: the metric that the best checkpoint is chosen by.
        progress: everything else that going on takes; empty where nobody goes on from here.
    """

    model: dict[str, Tensor]
    epoch: int
    metrics: dict[str, float]
    step: int = 0
    selects_by: str = "accuracy"
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What the best checkpoint is chosen by; nan where these weights weren't scored."""
        return self.metrics.get(self.selects_by, math.nan)

    @property
    def val_accuracy(self) -> float:
        """Share of val whose class has the highest logit; nan where that wasn't measured."""
        return self.metrics.get("accuracy", math.nan)

    @property
    def val_loss(self) -> float:
        """Mean loss on val; nan where that wasn't measured."""
        return self.metrics.get("loss", math.nan)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path`; a kill at any moment leaves the old file or the new one.

    Raises:
        RunError: it can't be written, as when the disk is full; the old file stays.
    """
    try:
        with whole_file(path) as file:
            torch.save(vars(checkpoint), file)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"{path}: can't be written after epoch {checkpoint.epoch}: {_reason(error)}"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what a kill left half written beside the checkpoints in `folder`."""
    for path in folder.glob(".*.pt.*"):
        path.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: the file is missing, broken or something else.
    """
    content = load(path)
    names = Checkpoint.__dataclass_fields__.keys()
    if isinstance(content, dict) and content.keys() == _OLD_NAMES:
        content = _modern(content)
    if (
        not isinstance(content, dict)
        or content.keys() != names
        or not isinstance(content["model"], dict)
        or not isinstance(content["epoch"], int)
        or not isinstance(content["metrics"], dict)
    ):
        raise WeightsError(f"{path}: not a checkpoint of fovea-train; expected {', '.join(names)} in it")
    return Checkpoint(**content)


# Of runs before they could be resumed.
_OLD_NAMES = {"model", "optimizer", "scheduler", "epoch", "val_accuracy", "val_loss"}


def _modern(content: dict[str, Any]) -> dict[str, Any]:
    metrics = {"loss": content["val_loss"], "accuracy": content["val_accuracy"]}
    return vars(Checkpoint(model=content["model"], epoch=content["epoch"], metrics=metrics))


def _reason(error: BaseException) -> str:
    """What the system said; torch.save follows it up with complaints of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return str(error).partition("\n")[0]
