"""Checkpoints: what a run needs to be scored, exported or gone on with, in one file written whole or not."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import WeightsError
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
    """Write `path`; a kill at any moment leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(vars(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: the file is missing, broken or something else.
    """
    content = load(path)
    names = Checkpoint.__dataclass_fields__.keys()
    if not isinstance(content, dict) or content.keys() != names:
        raise WeightsError(f"{path}: not a checkpoint of fovea-train; expected {', '.join(names)} in it")
    return Checkpoint(**content)
