"""The pictures that a run learned from and those that it was scored on, found again by its folder."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.config import DataConfig
from training.data import Split, digits
from training.errors import RunError
from training.image_files import find_images
from training.layout import ALL, parts_of
from training.listing import Entry, Listing, split_of
from training.sources import is_folder, list_source

_UNKNOWN = "{}: holds images of {!r}, which the run didn't know; its data have changed"


def run_test_split(run: Path, data: DataConfig) -> Split:
    """What the run was scored on.

    Raises:
        RunError: splits.json, or the images' folder, table or shards, can't be read.
        DataError: the data have changed so that they can't be trained on.
    """
    return _held_out(run, data, "test")


def run_val_split(run: Path, data: DataConfig) -> Split:
    """What the run's best checkpoint was chosen by.

    Raises:
        RunError, DataError: as `run_test_split`.
    """
    return _held_out(run, data, "val")


def run_train_split(run: Path, data: DataConfig) -> Split:
    """What the run learned from: all images that aren't val, test or left out.

    Raises:
        RunError: as `run_test_split`, or there are none.
        DataError: as `run_test_split`.
    """
    if data.source == "digits":
        return digits().train
    names = _listed(run)
    others = {name for listed in names.values() for name in listed}
    if not is_folder(data.source):
        listing = list_source(data.source)
        entries = listing.parts.get(ALL) or listing.parts["train"]
        return _relabelled([entry for entry in entries if entry.name not in others], listing, data)
    root = Path(data.source)
    held_out = {root / name for name in others}
    found = find_images(_parts(root).get("train", root)).paths
    return _split(root, [path for path in found if path not in held_out], data)


def _held_out(run: Path, data: DataConfig, part: str) -> Split:
    if data.source == "digits":
        return digits().test if part == "test" else digits().val
    names = _listed(run)[part]
    if is_folder(data.source):
        # Without a look at the rest, which may be gone.
        return _split(Path(data.source), [Path(data.source, name) for name in names], data)
    listing = list_source(data.source)
    there = {entry.name: entry for entry in _from(listing, part)}
    gone = [name for name in names if name not in there]
    if gone:
        raise RunError(
            f"{data.source}: {len(gone)} of the run's {part} images aren't in it any more, such as "
            f"{gone[0]}; its data have changed"
        )
    return _relabelled([there[name] for name in names], listing, data)


def _from(listing: Listing, part: str) -> Iterable[Entry]:
    """The entries that val or test was taken from; as `assembly.assemble` does it."""
    parts = listing.parts
    if ALL in parts:
        return parts[ALL]
    if part == "test":
        return parts["test"] if "test" in parts else parts["val"]
    return parts["val"] if len(parts) == 3 else parts["train"]


def _relabelled(entries: list[Entry], listing: Listing, data: DataConfig) -> Split:
    """The entries with the run's numbers for the classes."""
    if not entries:
        raise RunError(f"{data.source}: has no images of the run any more; name others")
    split = split_of(entries, len(listing.classes), listing.task)
    known = {label: index for index, label in enumerate(data.labels)}
    shown = np.flatnonzero(split.class_counts(len(listing.classes)))
    unknown = [listing.classes[label] for label in shown if listing.classes[label] not in known]
    if unknown:
        raise RunError(_UNKNOWN.format(data.source, unknown[0]))
    if split.labels.ndim == 2:
        labels = np.zeros((len(entries), len(known)), np.uint8)
        for label in shown:
            labels[:, known[listing.classes[label]]] = split.labels[:, label]
        return Split(split.sources, labels)
    numbers = np.array([known.get(name, -1) for name in listing.classes], np.int64)
    return Split(split.sources, numbers[split.labels])


def _split(root: Path, paths: list[Path], data: DataConfig) -> Split:
    if not paths:
        raise RunError(f"{root}: has no images of the run any more; name another folder")
    depth = 0 if ALL in _parts(root) else 1
    classes = {label: index for index, label in enumerate(data.labels)}
    try:
        labels = [classes[path.relative_to(root).parts[depth]] for path in paths]
    except KeyError as error:
        raise RunError(_UNKNOWN.format(root, error.args[0])) from error
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
