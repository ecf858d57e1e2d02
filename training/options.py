"""What the user asked of a run, and what that comes to for a data set and an architecture."""

import math
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch

from service.preprocess import Preprocessing
from training import config as run_config
from training.class_disjoint import trained_classes
from training.commit import commit
from training.config import RunConfig
from training.data import Dataset, default_workers
from training.errors import SettingError
from training.fingerprint import fingerprint
from training.losses import METRIC_LOSSES
from training.models import Architecture
from training.splits import IMAGENET_MEAN, MULTI_LABEL

T = TypeVar("T")

# Below this side a resized crop would throw away most of what little there is.
_SMALL_INPUT = 64
# Minutes of work on most machines; shorter epochs have one at their end anyway.
_STEPS_BETWEEN_CHECKPOINTS = 500
# Of losses that compare images of a class within the batch.
_IMAGES_PER_CLASS = {"multi-similarity": 4, "triplet": 4}
# Scaled cosines have steep gradients at first, and a projection that jumps away with them gives all images
# nearly the same embedding, from which it comes back slowly.
_METRIC_CLIP_NORM = 1.0
_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05, "lamb": 0.02}


@dataclass(frozen=True)
class FitOptions:
    """What the user asked for; None leaves a value to the data set and the architecture.

    Each is documented where the command line declares it, in `cli_fit.py`.
    """

    data: str
    arch: str = "resnet18"
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    optimizer: str = "sgd"
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_epochs: int | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    class_weights: bool = False
    dropout: float | None = None
    ema_decay: float = 0.0
    patience: int = 0
    loss: str | None = None
    loss_settings: str = ""
    pooling: str = "avg"
    projection: int = 0
    images_per_class: int | None = None
    holdout_classes: int | tuple[str, ...] = 0
    freeze: str = ""
    unfreeze_at_epoch: int = 0
    layer_decay: float = 1.0
    bf16: bool = False
    channels_last: bool = True
    compile: bool = False
    seed: int = 0
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    input_size: int | None = None
    train_size: int | None = None
    resize_size: int | None = None
    interpolation: str | None = None
    jpeg_scaled_decode: bool = False
    mean: run_config.Channels | None = None
    std: run_config.Channels | None = None
    crop: str = "auto"
    mirror: bool | None = None
    shift: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    elastic: float = 0.0
    colour: float = 0.0
    lighting: float = 0.0
    erasing: float = 0.0
    rand_augment: int = 0
    rand_augment_operations: int = 2
    trivial_augment: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    init_weights: Path | None = None
    pretrained: bool = False
    pretrained_version: str = ""
    skip_broken: bool = False
    checkpoint_every_steps: int | None = None
    trackers: tuple[str, ...] = ("tensorboard",)
    output: Path | None = None
    command: str = ""


def resolve(
    options: FitOptions, design: Architecture, dataset: Dataset, *, dropout: float = 0.0, world_size: int = 1
) -> RunConfig:
    """Fill in what the user left open.

    Args:
        options: what was asked.
        design: the architecture.
        dataset: what is learned from.
        dropout: the architecture's own.
        world_size: processes that learn together.

    Raises:
        SettingError: a value can't be used.
    """
    suits = dataset.defaults
    _check(options, design)
    learned = trained_classes(dataset) if options.holdout_classes else len(dataset.classes)
    epochs = _or(options.epochs, suits.epochs)
    batch_size = _or(options.batch_size, suits.batch_size)
    # A data set of small pictures enlarges them for an architecture that needs more.
    usual_size = max(suits.input_size or design.input_size, design.smallest_input)
    input_size = _or(options.input_size, usual_size)
    design.check_input_size(min(input_size, options.train_size or input_size))
    try:
        preprocessing = Preprocessing(
            resize_short_side=_or(options.resize_size, design.resize_for(input_size)),
            crop_height=input_size,
            crop_width=input_size,
            interpolation=_or(options.interpolation, design.interpolation),
            jpeg_scaled_decode=options.jpeg_scaled_decode,
        )
    except ValueError as error:
        raise SettingError(str(error)) from error
    # Published weights want the pixels that they were trained on; else a data set may know its own.
    own = options.pretrained or suits.mean == IMAGENET_MEAN
    mean, std = (design.mean, design.std) if own else (suits.mean, suits.std)
    rate = _learning_rate(options, suits.learning_rate, batch_size * options.accumulate * world_size)
    return RunConfig(
        run=run_config.Invocation(
            command=options.command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            seed=options.seed,
            threads=_or(options.threads, suits.threads or torch.get_num_threads()),
            workers=_or(options.workers, default_workers(dataset.train)),
            device=_device(options.device),
            torch=str(torch.__version__),
            world_size=world_size,
            checkpoint_every_steps=_or(options.checkpoint_every_steps, _STEPS_BETWEEN_CHECKPOINTS),
            trackers=options.trackers,
        ),
        data=run_config.DataConfig(
            source=options.data if options.data == "digits" else str(Path(options.data).resolve()),
            splits=dataset.rule,
            train_images=len(dataset.train),
            val_images=len(dataset.val),
            test_images=len(dataset.test),
            skip_broken=options.skip_broken,
            labels=dataset.classes[:learned],
            task=dataset.task,
            fingerprint=fingerprint(dataset),
            holdout_classes=dataset.classes[learned:],
            images_per_class=_or(options.images_per_class, _IMAGES_PER_CLASS.get(options.loss or "", 0)),
        ),
        model=run_config.ModelConfig(
            architecture=design.name,
            init_weights=str(options.init_weights or ""),
            pretrained=options.pretrained,
            pretrained_version=_pretrained_version(options, design),
            dropout=_or(options.dropout, dropout),
        ),
        preprocessing=preprocessing,
        normalization=run_config.NormalizationConfig(mean=options.mean or mean, std=options.std or std),
        augmentation=_augmentation(options, input_size, _or(options.mirror, suits.mirror)),
        optimization=run_config.OptimizationConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=rate,
            momentum=0.9,
            weight_decay=_or(options.weight_decay, _WEIGHT_DECAY[options.optimizer]),
            warmup_epochs=_warmup(options.warmup_epochs, epochs),
            label_smoothing=options.label_smoothing,
            optimizer=options.optimizer,
            accumulate=options.accumulate,
            clip_norm=_or(
                options.clip_norm, _METRIC_CLIP_NORM if options.loss in METRIC_LOSSES else design.clip_norm
            ),
            ema_decay=options.ema_decay,
            class_weights=options.class_weights,
            patience=options.patience,
            bf16=options.bf16,
            channels_last=options.channels_last,
            compile=options.compile,
        ),
        embedding=run_config.EmbeddingConfig(
            pooling=options.pooling,
            projection=options.projection,
            loss=_or(options.loss, _usual_loss(options, design, dataset)),
            loss_settings=options.loss_settings,
        ),
        transfer=run_config.TransferConfig(
            freeze=options.freeze,
            unfreeze_at_epoch=options.unfreeze_at_epoch,
            layer_decay=options.layer_decay,
        ),
    )


def _pretrained_version(options: FitOptions, design: Architecture) -> str:
    if options.pretrained:
        return design.published_version(options.pretrained_version or None).version
    if options.pretrained_version:
        raise SettingError(
            f"--pretrained-version is {options.pretrained_version!r} without --pretrained; expected that too"
        )
    return ""


def _usual_loss(options: FitOptions, design: Architecture, dataset: Dataset) -> str:
    if design.loss and not options.holdout_classes:
        return design.loss
    return "binary-cross-entropy" if dataset.task == MULTI_LABEL else "cross-entropy"


def _augmentation(options: FitOptions, input_size: int, mirror: bool) -> run_config.AugmentationConfig:
    crop = options.crop
    if crop == "auto":
        crop = "padded" if input_size <= _SMALL_INPUT else "resized"
    if options.train_size and crop != "resized":
        raise SettingError(
            f"--train-size is {options.train_size} with --crop {crop}; only a crop that is resized can have "
            "another size in training, so expected --crop resized"
        )
    named = {field.name: getattr(options, field.name) for field in fields(run_config.AugmentationConfig)}
    return run_config.AugmentationConfig(
        **named | {"crop": crop, "mirror": mirror, "train_size": options.train_size or 0}
    )


def _learning_rate(options: FitOptions, suits: float | None, images_a_step: int) -> float:
    if options.learning_rate is not None:
        return options.learning_rate
    if options.optimizer == "sgd":
        # Goyal et al. 2017 (arXiv:1706.02677): in proportion to the batch.
        usual = suits or 0.1 * images_a_step / 256
    elif options.optimizer == "adamw":
        # As Liu et al. 2021 (arXiv:2103.14030) and their successors have it, brought to the batch likewise.
        usual = 1e-3 * images_a_step / 1024
    else:
        # Wightman et al. 2021 (arXiv:2110.00476), A3; by the square root, as You et al. 2019 scale LAMB's.
        usual = 8e-3 * math.sqrt(images_a_step / 2048)
    # A tenth for weights that know already.
    return usual / (10 if options.init_weights or options.pretrained else 1)


def _check(options: FitOptions, design: Architecture) -> None:
    if options.loss == "margin" and design.loss != "margin":
        raise SettingError(
            f"--loss margin is about the lengths of capsules, and {design.name} has none; expected "
            "--arch capsnet"
        )
    if options.rand_augment and options.trivial_augment:
        raise SettingError(
            "--rand-augment and --trivial-augment are both given; expected one of them, they draw from the "
            "same operations"
        )
    if options.pretrained and options.init_weights:
        raise SettingError("--pretrained and --init-weights are both given; expected one of them")
    if options.loss in METRIC_LOSSES and (options.mixup or options.cutmix):
        raise SettingError(
            f"--loss {options.loss} wants one label an image; expected no mixup or cutmix, which mix labels"
        )
    if options.unfreeze_at_epoch and not options.freeze:
        raise SettingError(
            f"--unfreeze-at-epoch is {options.unfreeze_at_epoch} without --freeze; expected a stage to freeze"
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
