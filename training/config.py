"""What a run was told, resolved to the last value: config.toml in its folder."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.preprocess import Preprocessing
from training.errors import RunError

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
    """

    command: str
    created: str
    commit: str
    seed: int
    threads: int
    workers: int
    device: str


@dataclass(frozen=True)
class DataConfig:
    """What was learned from.

    Attributes:
        source: 'digits' or the folder's absolute path.
        splits: how train, val and test were made, in words.
        train_images, val_images, test_images: their sizes.
        skip_broken: whether broken files were left out.
        labels: in the order of the logits.
    """

    source: str
    splits: str
    train_images: int
    val_images: int
    test_images: int
    skip_broken: bool
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        architecture: a name of `training.models`.
        init_weights: the file the weights started from; empty for random ones.
    """

    architecture: str
    init_weights: str


@dataclass(frozen=True)
class NormalizationConfig:
    """(pixel / 255 - mean) / std per RGB channel."""

    mean: Channels
    std: Channels


@dataclass(frozen=True)
class AugmentationConfig:
    """What training does to pictures; see `transforms.TrainTransform`."""

    crop: str
    mirror: bool


@dataclass(frozen=True)
class OptimizationConfig:
    """How the weights were learned; see `optim`."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_epochs: int
    label_smoothing: float


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


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `folder`/config.toml."""
    sections = [
        f"[{section}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in fields.items())
        for section, fields in asdict(config).items()
    ]
    (folder / "config.toml").write_text("\n".join(sections), encoding="utf-8")


def read_config(folder: Path) -> RunConfig:
    """Read `folder`/config.toml.

    Raises:
        RunError: it is missing, broken or incomplete.
    """
    path = folder / "config.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        data, normalization = document["data"], document["normalization"]
        return RunConfig(
            run=Invocation(**document["run"]),
            data=DataConfig(**data | {"labels": tuple(data["labels"])}),
            model=ModelConfig(**document["model"]),
            preprocessing=Preprocessing(**document["preprocessing"]),
            normalization=NormalizationConfig(**_tuples(normalization)),
            augmentation=AugmentationConfig(**document["augmentation"]),
            optimization=OptimizationConfig(**document["optimization"]),
        )
    except OSError as error:
        raise RunError(
            f"{path}: can't be read: {error.strerror}; expected a run of fovea-train fit"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the configuration of a run: {error}") from error


def _tuples(fields: Mapping[str, list[float]]) -> dict[str, Any]:
    return {name: tuple(values) for name, values in fields.items()}


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # A file name that isn't UTF-8, which only the command line may hold, is shown by its escapes.
        text = value.encode("utf-8", "backslashreplace").decode()
        # JSON's escapes are TOML's, but for delete, which TOML wants escaped.
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
