"""The pictures that a run learned from and those that it was scored on, found again by its folder."""

import json
from pathlib import Path

import numpy as np

from training.config import DataConfig
from training.data import Split, digits
from training.errors import RunError
from training.image_files import find_images
from training.layout import ALL, parts_of


def run_test_split(run: Path, data: DataConfig) -> Split:
    """What the run was scored on.

    Raises:
        RunError: splits.json, or the folder of images, can't be read.
    """
    if data.source == "digits":
        return digits().test
    root = Path(data.source)
    return _split(root, [root / name for name in _listed(run)["test"]], data)


def run_val_split(run: Path, data: DataConfig) -> Split:
    """What the run's best checkpoint was chosen by.

    Raises:
        RunError: splits.json, or the folder of images, can't be read.
    """
    if data.source == "digits":
        return digits().val
    root = Path(data.source)
    return _split(root, [root / name for name in _listed(run)["val"]], data)


def run_train_split(run: Path, data: DataConfig) -> Split:
    """What the run learned from: all images that aren't val, test or left out.

    Raises:
        RunError: splits.json, or the folder of images, can't be read, or there are none.
        DataError: as `layout.parts_of`.
    """
    if data.source == "digits":
        return digits().train
    root, listed = Path(data.source), _listed(run)
    held_out = {root / name for names in listed.values() for name in names}
    parts = _parts(root)
    found = find_images(parts.get("train", root)).paths
    return _split(root, [path for path in found if path not in held_out], data)


def _split(root: Path, paths: list[Path], data: DataConfig) -> Split:
    if not paths:
        raise RunError(f"{root}: has no images of the run any more; name another folder")
    depth = 0 if ALL in _parts(root) else 1
    classes = {label: index for index, label in enumerate(data.labels)}
    try:
        labels = [classes[path.relative_to(root).parts[depth]] for path in paths]
    except KeyError as error:
        raise RunError(
            f"{root}: holds images of {error.args[0]!r}, which the run didn't know; its data have changed"
        ) from error
    return Split(paths, np.array(labels, np.int64))


def _parts(root: Path) -> dict[str, Path]:
    try:
        return parts_of(root)
    except OSError as error:
        raise RunError(
            f"{error.filename}: can't be read: {error.strerror}; the run's images were there. "
            "Name others with --images, and for int8 with --calibration"
        ) from error


def _listed(run: Path) -> dict[str, list[str]]:
    """Names of the files of val, test and what was left out, relative to the data folder."""
    path = run / "splits.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        # Runs of before the third was recorded don't have it.
        listed.setdefault("left_out", [])
        return {part: [str(name) for name in listed[part]] for part in ("val", "test", "left_out")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: can't be read: {error}") from error
