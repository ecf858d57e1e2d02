"""Checkpoints: what a run needs to be scored or exported, in one file written whole or not.

The optimizer's and the schedule's states are kept too; nothing reads them yet: a run that was stopped
can't be resumed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import RunError, WeightsError
from training.weights import load


@dataclass(frozen=True)
class Checkpoint:
    """The state after an epoch.

    Attributes:
        model: state dict.
        optimizer, scheduler: state dicts.
        epoch: epochs done, from 1.
        val_accuracy, val_loss: of these weights.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    epoch: int
    val_accuracy: float
    val_loss: float


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path`; a kill at any moment leaves the old file or the new one.

    Raises:
        RunError: it can't be written, as when the disk is full; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(vars(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"{path}: can't be written after epoch {checkpoint.epoch}: {_reason(error)}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: the file is missing, broken or something else.
    """
    content = load(path)
    names = Checkpoint.__dataclass_fields__.keys()
    if (
        not isinstance(content, dict)
        or content.keys() != names
        or not isinstance(content["model"], dict)
        or not isinstance(content["epoch"], int)
    ):
        raise WeightsError(f"{path}: not a checkpoint of fovea-train; expected {', '.join(names)} in it")
    return Checkpoint(**content)


def _reason(error: BaseException) -> str:
    """What the system said; torch.save follows it up with complaints of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return str(error).partition("\n")[0]
