"""What a user gives besides --resume must be what the run was started with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config import RunConfig
from training.errors import SettingError

# Where config.toml has what an option of fit sets. What resolution may change ('auto') is told apart below.
_PLACES = {
    "arch": "model.architecture",
    "init_weights": "model.init_weights",
    "pretrained": "model.pretrained",
    "pretrained_version": "model.pretrained_version",
    "dropout": "model.dropout",
    "data": "data.source",
    "skip_broken": "data.skip_broken",
    "images_per_class": "data.images_per_class",
    "loss": "embedding.loss",
    "loss_settings": "embedding.loss_settings",
    "pooling": "embedding.pooling",
    "projection": "embedding.projection",
    "input_size": "preprocessing.crop_height",
    "resize_size": "preprocessing.resize_short_side",
    "interpolation": "preprocessing.interpolation",
    "jpeg_scaled_decode": "preprocessing.jpeg_scaled_decode",
    "mean": "normalization.mean",
    "std": "normalization.std",
    "seed": "run.seed",
    "workers": "run.workers",
    "threads": "run.threads",
    "device": "run.device",
    "checkpoint_every_steps": "run.checkpoint_every_steps",
    "trackers": "run.trackers",
    "freeze": "transfer.freeze",
    "unfreeze_at_epoch": "transfer.unfreeze_at_epoch",
    "layer_decay": "transfer.layer_decay",
}
_SECTIONS_BY_NAME = ("augmentation", "optimization")


def check_given(given: Mapping[str, Any], config: RunConfig) -> None:
    """Compare.

    Args:
        given: option → value, of those that the user gave.
        config: of the run that is to go on.

    Raises:
        SettingError: names what differs, with both values.
    """
    changed = []
    for option, value in given.items():
        before = _recorded(option, config)
        if option == "holdout_classes" and isinstance(value, int):
            before = len(before)
        if value != "auto" and _comparable(option, value) != _comparable(option, before):
            changed.append(f"--{option.replace('_', '-')} is {_typed(value)}, the run's is {_typed(before)}")
    if changed:
        raise SettingError(
            f"{'; '.join(changed)}: a run that goes on can't change; leave these out, or start a new run"
        )


def _recorded(option: str, config: RunConfig) -> Any:
    if option == "holdout_classes":
        return config.data.holdout_classes
    place = _PLACES.get(option)
    if place is None:
        for section in _SECTIONS_BY_NAME:
            if hasattr(getattr(config, section), option):
                place = f"{section}.{option}"
    if place is None:
        raise SettingError(f"--{option.replace('_', '-')} means nothing with --resume; leave it out")
    section, name = place.split(".")
    return getattr(getattr(config, section), name)


def _comparable(option: str, value: Any) -> Any:
    if option == "data" and value != "digits":
        return str(Path(value).resolve())
    if isinstance(value, Path):
        return str(value)
    return value


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
