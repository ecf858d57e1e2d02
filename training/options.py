"""What the user asked of a run, and what that comes to for a data set and an architecture."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch

from service.preprocess import Preprocessing
from training import config as run_config
from training.commit import commit
from training.config import RunConfig
from training.data import Dataset, default_workers
from training.errors import SettingError
from training.models import Architecture

T = TypeVar("T")

# Below this side a resized crop would throw away most of what little there is.
_SMALL_INPUT = 64


@dataclass(frozen=True)
class FitOptions:
    """What the user asked for; None leaves a value to the data set and the architecture.

    Each is documented where the command line declares it, in `cli_fit.py`.
    """

    data: str
    arch: str = "resnet18"
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    warmup_epochs: int | None = None
    label_smoothing: float = 0.0
    seed: int = 0
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    input_size: int | None = None
    resize_size: int | None = None
    interpolation: str = "bilinear"
    jpeg_scaled_decode: bool = False
    mean: run_config.Channels | None = None
    std: run_config.Channels | None = None
    crop: str = "auto"
    mirror: bool | None = None
    init_weights: Path | None = None
    skip_broken: bool = False
    output: Path | None = None
    command: str = ""


def resolve(options: FitOptions, design: Architecture, dataset: Dataset) -> RunConfig:
    """Fill in what the user left open.

    Raises:
        SettingError: a value can't be used.
    """
    suits = dataset.defaults
    epochs = _or(options.epochs, suits.epochs)
    batch_size = _or(options.batch_size, suits.batch_size)
    # Goyal et al. 2017 (arXiv:1706.02677): in proportion to the batch; a tenth for weights that know already.
    usual_rate = suits.learning_rate or 0.1 * batch_size / 256
    input_size = _or(options.input_size, suits.input_size or design.input_size)
    try:
        preprocessing = Preprocessing(
            resize_short_side=_or(options.resize_size, design.resize_for(input_size)),
            crop_height=input_size,
            crop_width=input_size,
            interpolation=options.interpolation,
            jpeg_scaled_decode=options.jpeg_scaled_decode,
        )
    except ValueError as error:
        raise SettingError(str(error)) from error
    crop = options.crop
    if crop == "auto":
        crop = "padded" if input_size <= _SMALL_INPUT else "resized"
    return RunConfig(
        run=run_config.Invocation(
            command=options.command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            seed=options.seed,
            threads=_or(options.threads, suits.threads or torch.get_num_threads()),
            workers=_or(options.workers, default_workers(dataset.train)),
            device=_device(options.device),
        ),
        data=run_config.DataConfig(
            source=options.data if options.data == "digits" else str(Path(options.data).resolve()),
            splits=dataset.rule,
            train_images=len(dataset.train),
            val_images=len(dataset.val),
            test_images=len(dataset.test),
            skip_broken=options.skip_broken,
            labels=dataset.classes,
        ),
        model=run_config.ModelConfig(architecture=design.name, init_weights=str(options.init_weights or "")),
        preprocessing=preprocessing,
        normalization=run_config.NormalizationConfig(
            mean=options.mean or suits.mean, std=options.std or suits.std
        ),
        augmentation=run_config.AugmentationConfig(crop=crop, mirror=_or(options.mirror, suits.mirror)),
        optimization=run_config.OptimizationConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=_or(options.learning_rate, usual_rate / (10 if options.init_weights else 1)),
            momentum=0.9,
            weight_decay=options.weight_decay,
            warmup_epochs=_warmup(options.warmup_epochs, epochs),
            label_smoothing=options.label_smoothing,
        ),
    )


def _or(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _warmup(asked: int | None, epochs: int) -> int:
    if asked is None:
        return min(5, epochs // 10)
    if asked >= epochs:
        raise SettingError(f"--warmup-epochs is {asked}; expected less than --epochs = {epochs}")
    return asked


def _device(asked: str) -> str:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise SettingError("--device is cuda; this PyTorch finds no CUDA device. Use cpu or auto")
    return ("cuda" if available else "cpu") if asked == "auto" else asked
