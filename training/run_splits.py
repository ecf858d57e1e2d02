"""The pictures that a run learned from and those that it was scored on, found again by its folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from service.errors import InvalidImage
from training.class_disjoint import hold_out_last
from training.config import DataConfig
from training.data import Split, digits
from training.errors import DataError, RunError
from training.layout import ALL, PART_NAMES, parts_of
from training.listing import Entry, Listing, split_of
from training.sources import is_folder, list_source

_MOVED = "The run's images were there. Name others with --images, and for int8 with --calibration"
_UNKNOWN = "{}: holds images of {!r}, which the run didn't know; its data have changed"


def run_test_split(run: Path, data: DataConfig) -> Split:
    """What the run was scored on.

    Labels are indices of the run's labels; those of classes that were held out go on behind them.

    Raises:
        RunError: splits.json, or the images' folder, table or shards, can't be read, or have changed.
    """
    return _run_split(run, data, "test")


def run_val_split(run: Path, data: DataConfig) -> Split:
    """What the run's best checkpoint was chosen by; as `run_test_split`."""
    return _run_split(run, data, "val")


def run_train_split(run: Path, data: DataConfig) -> Split:
    """What the run learned from: all images that aren't val, test or left out; as `run_test_split`."""
    return _run_split(run, data, "train")


def _run_split(run: Path, data: DataConfig, part: str) -> Split:
    if not data.holdout_classes:
        return _before_holding_out(run, data, part)
    splits = [_before_holding_out(run, data, each) for each in PART_NAMES]
    try:
        found = hold_out_last(splits, (*data.labels, *data.holdout_classes), len(data.holdout_classes))
    except (DataError, InvalidImage, OSError) as error:
        raise RunError(f"{data.source}: its images have changed: {error}") from error
    return found[tuple(PART_NAMES).index(part)]


def _before_holding_out(run: Path, data: DataConfig, part: str) -> Split:
    if data.source == "digits":
        split: Split = getattr(digits(), part)
        return _renumbered(split, digits().classes, data)
    names = _listed(run)
    if part != "train" and is_folder(data.source):
        # Without a look at the rest, which may be gone.
        return _of_folder(Path(data.source), names[part], data)
    try:
        listing = list_source(data.source)
    except DataError as error:
        raise RunError(f"{error}. {_MOVED}") from error
    if part == "train":
        others = {name for listed in names.values() for name in listed}
        every = listing.parts.get(ALL) or listing.parts["train"]
        return _of_listing([entry for entry in every if entry.name not in others], listing, data)
    there = {entry.name: entry for entry in _from(listing, part)}
    gone = [name for name in names[part] if name not in there]
    if gone:
        raise RunError(
            f"{data.source}: {len(gone)} of the run's {part} images aren't in it any more, such as "
            f"{gone[0]}; its data have changed"
        )
    return _of_listing([there[name] for name in names[part]], listing, data)


def _from(listing: Listing, part: str) -> Iterable[Entry]:
    """The entries that val or test was taken from; as `assembly.assemble` does it."""
    parts = listing.parts
    if ALL in parts:
        return parts[ALL]
    if part == "test":
        return parts["test"] if "test" in parts else parts["val"]
    return parts["val"] if len(parts) == 3 else parts["train"]


def _of_listing(entries: Sequence[Entry], listing: Listing, data: DataConfig) -> Split:
    if not entries:
        raise RunError(f"{data.source}: has no images of the run any more; name others")
    return _renumbered(split_of(entries, len(listing.classes), listing.task), listing.classes, data)


def _of_folder(root: Path, names: Sequence[str], data: DataConfig) -> Split:
    if not names:
        raise RunError(f"{root}: has no images of the run any more; name another folder")
    try:
        depth = 0 if ALL in parts_of(root) else 1
    except OSError as error:
        raise RunError(f"{error.filename}: can't be read: {error.strerror}. {_MOVED}") from error
    given = [Path(name).parts[depth] for name in names]
    classes = tuple(dict.fromkeys(given))
    labels = np.array([classes.index(name) for name in given], np.int64)
    return _renumbered(Split([root / name for name in names], labels), classes, data)


def _renumbered(split: Split, classes: Sequence[str], data: DataConfig) -> Split:
    """The split with the run's numbers for the classes, which the data may give others now."""
    known = {name: label for label, name in enumerate((*data.labels, *data.holdout_classes))}
    shown: list[int] = np.flatnonzero(split.class_counts(len(classes))).tolist()
    unknown = [classes[label] for label in shown if classes[label] not in known]
    if unknown:
        raise RunError(_UNKNOWN.format(data.source, unknown[0]))
    if split.labels.ndim == 1:
        numbers = np.array([known.get(name, -1) for name in classes], np.int64)
        return Split(split.sources, numbers[split.labels])
    labels = np.zeros((len(split), len(known)), np.uint8)
    for label in shown:
        labels[:, known[classes[label]]] = split.labels[:, label]
    return Split(split.sources, labels)


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
