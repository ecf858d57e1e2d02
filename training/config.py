"""What a run was told, resolved to the last value: config.toml in its folder."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.preprocess import Preprocessing
from training.errors import RunError
from training.whole_file import whole_file

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Invocation:
    """How the run was started.

    Attributes:
        command: the command line.
        created: ISO 8601, UTC.
        commit: of this code; empty where there is none.
        seed: of everything random.
        threads: of PyTorch in the main process; the last bits of the result depend on it.
        workers: processes that load images.
        device: 'cpu' or 'cuda'.
        torch: PyTorch's version, on which the last bits depend too; empty in old runs.
        world_size: processes that learned together, each from its own part of every batch.
        checkpoint_every_steps: optimizer steps between two checkpoints inside an epoch; 0 for none.
        trackers: who is told of losses and scores; see `trackers`.
    """

    command: str
    created: str
    commit: str
    seed: int
    threads: int
    workers: int
    device: str
    torch: str = ""
    world_size: int = 1
    checkpoint_every_steps: int = 0
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataConfig:
    """What was learned from.

    Attributes:
        source: 'digits', or the absolute path of the folder, table or shards.
        splits: how train, val and test were made, in words.
        train_images, val_images, test_images: their sizes.
        skip_broken: whether broken files were left out.
        labels: in the order of the logits.
        task: 'single_label' or 'multi_label'.
        fingerprint: of all pictures' names, sizes and labels; see `fingerprint`. Empty in old runs.
        holdout_classes: what else val and test show: classes that weren't learned. Their labels go on where
            those of `labels` end.
        images_per_class: how many of each class a batch draws together; 0 shuffles freely.
    """

    source: str
    splits: str
    train_images: int
    val_images: int
    test_images: int
    skip_broken: bool
    labels: tuple[str, ...]
    task: str = "single_label"
    fingerprint: str = ""
    holdout_classes: tuple[str, ...] = ()
    images_per_class: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        architecture: a name of `training.models`.
        init_weights: the file the weights started from; empty for random or published ones.
        pretrained: whether they started from the published ones.
        pretrained_version: which of these; empty in old runs, which took the default.
        dropout: the probability that training zeroes a pooled feature.
    """

    architecture: str
    init_weights: str
    pretrained: bool = False
    dropout: float = 0.0
    pretrained_version: str = ""


@dataclass(frozen=True)
class EmbeddingConfig:
    """What the features become, and the loss that they are learned by.

    Attributes:
        pooling: 'avg' or 'gem'; see `models.heads`.
        projection: width of the embedding; 0 leaves the pooled features as they are.
        loss: 'cross-entropy', 'binary-cross-entropy', or one of `losses`.
        loss_settings: of it, as `losses.loss_settings` reads them; else its authors'.
    """

    pooling: str = "avg"
    projection: int = 0
    loss: str = "cross-entropy"
    loss_settings: str = ""


@dataclass(frozen=True)
class TransferConfig:
    """What of the network learns, and how fast; see `finetune`.

    Attributes:
        freeze: the last stage that keeps its weights, with all before it; empty for none.
        unfreeze_at_epoch: the epoch that begins with all of them learning, from 1; 0 for never.
        layer_decay: a stage's learning rate is this times the next one's; 1 for the same everywhere.
    """

    freeze: str = ""
    unfreeze_at_epoch: int = 0
    layer_decay: float = 1.0


@dataclass(frozen=True)
class NormalizationConfig:
    """(pixel / 255 - mean) / std per RGB channel."""

    mean: Channels
    std: Channels


@dataclass(frozen=True)
class AugmentationConfig:
    """What training does to pictures; 0 is nothing.

    Attributes:
        crop: 'resized', 'padded' or 'none'; see `transforms.TrainTransform`.
        mirror: half of the pictures are mirrored.
        train_size: side of the network's input in training, in pixels; 0 for that of evaluation.
        shift: at most this share of the side, each way.
        rotation: at most this many degrees, either way.
        shear: at most this many degrees, either way, across and down.
        zoom: by a factor from 1 − this to 1 + this.
        elastic: local warping that moves points by about this share of the side.
        colour: strength of changes of brightness, contrast, saturation and, a quarter as much, hue.
        lighting: standard deviation of shifts along the colours' principal axes.
        erasing: the probability that a rectangle is wiped out.
        rand_augment: magnitude, up to 29, of RandAugment's operations.
        rand_augment_operations: how many a picture gets.
        trivial_augment: one random operation of random strength.
        mixup: α of mixing with another picture and its label.
        cutmix: α of pasting a rectangle of another picture with its share of the label.
    """

    crop: str
    mirror: bool
    train_size: int = 0
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


@dataclass(frozen=True)
class OptimizationConfig:
    """How the weights were learned; see `optim` and `engine`.

    Attributes:
        epochs: passes over the training images.
        batch_size: images that go through the network together, in each process.
        learning_rate: the highest of the schedule.
        momentum: of SGD.
        weight_decay: of weights, but not of biases and normalisation.
        warmup_epochs: while the learning rate rises.
        label_smoothing: share of the target that is spread over all classes.
        optimizer: 'sgd', 'adamw' or 'lamb'.
        accumulate: batches whose gradients make one step.
        clip_norm: gradients are scaled down to this norm, over all parameters; 0 for never.
        ema_decay: of the running average of the weights, which is what is scored and exported; 0 for none.
        class_weights: whether rare classes count more.
        patience: epochs without a better score after which training stops; 0 for never.
        bf16: whether the forward pass computes in bfloat16 where PyTorch's autocast says so.
        channels_last: whether weights lie channels last in memory.
        compile: whether torch.compile compiles the network.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_epochs: int
    label_smoothing: float
    optimizer: str = "sgd"
    accumulate: int = 1
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    class_weights: bool = False
    patience: int = 0
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run, one attribute a section of the file."""

    run: Invocation
    data: DataConfig
    model: ModelConfig
    preprocessing: Preprocessing
    normalization: NormalizationConfig
    augmentation: AugmentationConfig
    optimization: OptimizationConfig
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `folder`/config.toml."""
    sections = [
        f"[{section}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in fields.items())
        for section, fields in asdict(config).items()
    ]
    # A run that is killed at its very beginning can go on too.
    with whole_file(folder / "config.toml") as file:
        file.write("\n".join(sections).encode())


def read_config(folder: Path) -> RunConfig:
    """Read `folder`/config.toml; what older runs don't say has the value that it had then.

    Raises:
        RunError: it is missing, broken or incomplete.
    """
    path = folder / "config.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return RunConfig(
            run=Invocation(**_tuples(document["run"])),
            data=DataConfig(**_tuples(document["data"])),
            model=ModelConfig(**document["model"]),
            preprocessing=Preprocessing(**document["preprocessing"]),
            normalization=NormalizationConfig(**_tuples(document["normalization"])),
            augmentation=AugmentationConfig(**document["augmentation"]),
            optimization=OptimizationConfig(**document["optimization"]),
            embedding=EmbeddingConfig(**document.get("embedding", {})),
            transfer=TransferConfig(**document.get("transfer", {})),
        )
    except OSError as error:
        raise RunError(
            f"{path}: can't be read: {error.strerror}; expected a run of fovea-train fit"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the configuration of a run: {error}") from error


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # A file name that isn't UTF-8, which only the command line may hold, is shown by its escapes.
        text = value.encode("utf-8", "backslashreplace").decode()
        # JSON's escapes are TOML's, but for delete, which TOML wants escaped.
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
