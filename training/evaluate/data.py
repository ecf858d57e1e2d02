"""The labelled pictures that a target is asked about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.config import read_config
from training.data import open_dataset
from training.errors import DataError, SettingError
from training.image_files import find_images
from training.layout import ALL, class_names, parts_of
from training.listing import split_of
from training.run_splits import run_test_split, run_train_split, run_val_split
from training.sources import is_folder, list_source
from training.splits import Split

PARTS = ("auto", "test", "val", "train", "all")


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """What to score on.

    Attributes:
        split: the pictures; its labels are indices of `classes`, or columns of them.
        classes: as the data call them.
        source: where they come from, for people.
        root: names of files are given relative to it; None where they aren't.
        names: of all pictures, where the data name them.
        notes: what was left out, or should be known of the scores, a line each.
        damaged: names and faults of archives that can't be read to their end.
        left_out: names and faults of what was broken, and isn't among the pictures.
        checked: whether every file was decoded once.
    """

    split: Split
    classes: tuple[str, ...]
    source: str
    root: Path | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    checked: bool = False

    def name(self, index: int) -> str:
        """What to call one picture."""
        if self.names:
            return self.names[index]
        source = self.split.sources[index]
        if isinstance(source, np.ndarray):
            return f"#{index}"
        text = str(source)
        return text.removeprefix(f"{self.root}/") if self.root else text


def run_pictures(run: Path, part: str = "auto") -> LabelledPictures:
    """A run's own pictures, as its splits.json has them.

    Args:
        run: the folder of `fovea-train fit`.
        part: one of `PARTS`; 'auto' is test, 'all' isn't there.

    Raises:
        RunError: they can't be found again.
    """
    find = {"auto": run_test_split, "test": run_test_split, "val": run_val_split, "train": run_train_split}
    if part not in find:
        raise SettingError(f"--split is {part!r}, which a run doesn't have; expected test, val or train")
    config = read_config(run)
    data = config.data
    name = "test" if part == "auto" else part
    source = Path(data.source)
    root = None if data.source == "digits" else source if source.is_dir() else source.parent
    classes = (*data.labels, *data.holdout_classes)
    return LabelledPictures(find[part](run, data), classes, f"{data.source}, {name} of {run}", root)


def open_pictures(data: str, part: str = "auto", skip_broken: bool = False) -> LabelledPictures:
    """Pictures by name.

    Args:
        data: the folder of a run, whose own splits are meant; or what `fit --data` takes.
        part: one of `PARTS`; 'auto' is the part that is meant for scoring (test, else val) where the data
            come in parts, and all of them where they don't.
        skip_broken: whether files that can't be decoded are left out where data have to be divided, for which
            all are looked at; else `check.check_pictures` does it.

    Raises:
        DataError: there is nothing usable.
        BrokenImages: lists what can't be decoded, of data that have to be divided.
    """
    if (Path(data) / "config.toml").is_file():
        return run_pictures(Path(data), part)
    if data == "digits":
        return _divided(data, "test" if part == "auto" else part, None, skip_broken)
    if is_folder(data):
        return _folder(Path(data), part, skip_broken)
    listing = list_source(data)
    if ALL in listing.parts and part in ("train", "val", "test"):
        return _divided(data, part, None, skip_broken)
    chosen = _chosen(listing.parts, part, listing.origin)
    entries = [entry for name in chosen for entry in listing.parts[name]]
    return LabelledPictures(
        split=split_of(entries, len(listing.classes), listing.task),
        classes=listing.classes,
        source=f"{data}, {_called(chosen)}",
        names=tuple(entry.name for entry in entries),
        notes=_warnings(part, chosen),
        damaged=listing.damaged,
    )


def matched(pictures: LabelledPictures, labels: Sequence[str], task: str) -> Split:
    """The same pictures with the target's own labels, found by name.

    Args:
        pictures: labelled by names of their own.
        labels: the target's, in the order of its logits.
        task: the target's; without classes the pictures keep their own.

    Raises:
        SettingError: a class isn't one of the target's or could be two of them, or the pictures have
            several labels each and the target takes one.
    """
    split = pictures.split
    if task == "embedding":
        return split
    columns = _columns(pictures.classes, labels)
    if split.labels.ndim == 2:
        if task != "multi_label":
            raise SettingError(f"{pictures.source}: several labels an image; the model gives each just one")
        targets = np.zeros((len(split), len(labels)), np.uint8)
        targets[:, columns] = split.labels
        return Split(split.sources, targets)
    if task == "multi_label":
        targets = np.zeros((len(split), len(labels)), np.uint8)
        targets[np.arange(len(split)), columns[split.labels]] = 1
        return Split(split.sources, targets)
    return Split(split.sources, columns[split.labels].astype(np.int64))


def _columns(classes: Sequence[str], labels: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    if tuple(classes) == tuple(labels):
        return np.arange(len(classes))
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise SettingError(
            f"the model has no class {', '.join(map(repr, unknown[:8]))}{' …' if len(unknown) > 8 else ''}; "
            f"its {len(labels)} classes are {', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}"
        )
    twice = [name for name in classes if list(labels).count(name) > 1]
    if twice:
        raise SettingError(
            f"the model has {twice[0]!r} twice among its classes; which is meant can't be told"
        )
    places = {label: index for index, label in enumerate(labels)}
    return np.array([places[name] for name in classes], np.int64)


def _divided(data: str, part: str, root: Path | None, skip_broken: bool) -> LabelledPictures:
    """A part of data that come in one, as `fit` divides them."""
    dataset = open_dataset(data, skip_broken)
    splits = (dataset.train, dataset.val, dataset.test) if part == "all" else (getattr(dataset, part),)
    labels = np.concatenate([split.labels for split in splits])
    sources: Any = [source for split in splits for source in split.sources]
    if isinstance(splits[0].sources, np.ndarray):
        sources = np.stack(sources)
    return LabelledPictures(
        split=Split(sources, labels),
        classes=dataset.classes,
        source=f"{data}, {part}",
        root=root,
        notes=dataset.notes,
        left_out=dataset.broken,
        checked=True,
    )


def _folder(root: Path, part: str, skip_broken: bool) -> LabelledPictures:
    """<class>/… folders, perhaps in parts; files are taken as they are, so that broken ones can be told."""
    try:
        parts = parts_of(root)
        if part in ("train", "val", "test") and ALL in parts:
            return _divided(str(root), part, root, skip_broken)
        chosen = _chosen(parts, part, root)
        classes = tuple(sorted({name for part in chosen for name in class_names(parts[part])}))
        paths, labels = [], []
        for folder in (parts[part] for part in chosen):
            for label, name in enumerate(classes):
                found = find_images(folder / name).paths if (folder / name).is_dir() else []
                paths += found
                labels += [label] * len(found)
    except OSError as error:
        raise DataError(f"{error.filename or root}: can't be read: {error.strerror}") from error
    if not paths:
        raise DataError(f"{root}: no images in folders named like classes")
    split = Split(paths, np.array(labels, np.int64))
    source = f"{root}, {_called(chosen)}"
    return LabelledPictures(split, classes, source, root, notes=_warnings(part, chosen))


def _chosen(parts: Iterable[str], part: str, where: Path) -> list[str]:
    """Which of the parts that there are."""
    there = list(parts)
    if ALL in there or part == "all":
        return there
    name = next((name for name in ("test", "val") if name in there), "train") if part == "auto" else part
    if name not in there:
        raise SettingError(f"--split is {part!r}; {where} has {', '.join(there)}")
    return [name]


def _warnings(part: str, chosen: list[str]) -> tuple[str, ...]:
    """Where the parts weren't asked for and the data come in one, training images may be among them."""
    if part != "auto" or ALL not in chosen:
        return ()
    return (
        "all images are scored; a model that learned from some of them looks better than it is: "
        "--data with the run's folder takes its test images",
    )


def _called(chosen: list[str]) -> str:
    return "all" if ALL in chosen else " and ".join(chosen)
