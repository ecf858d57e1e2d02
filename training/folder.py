"""A folder of images, a subfolder for each class → a data set, with every broken file found beforehand."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import InvalidImage
from service.image import decode_picture
from training.errors import BrokenImages, DataError
from training.splits import FILE_LIMITS, Dataset, Defaults, Split, group, partition

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
TEST_SHARE = 0.15
VAL_SHARE = 0.15
# A folder that is broken altogether needn't be listed to its end.
_LISTED = 50

Track = Callable[[Iterable[tuple[Path, str]], int], Iterable[tuple[Path, str]]]
"""Passes files with their faults on, and shows how many of the total went by."""


def untracked(files: Iterable[tuple[Path, str]], _total: int) -> Iterable[tuple[Path, str]]:
    """Shows no progress."""
    return files


@dataclass(frozen=True)
class _Files:
    """Image files with their classes; `keys` are paths relative to the data folder, with slashes."""

    paths: list[Path]
    labels: list[int]
    keys: list[str]

    def take(self, indices: Iterable[int]) -> "_Files":
        kept = list(indices)
        return _Files(
            [self.paths[i] for i in kept], [self.labels[i] for i in kept], [self.keys[i] for i in kept]
        )

    def split(self) -> Split:
        return Split(self.paths, np.asarray(self.labels, np.int64))


def read_folder(root: Path, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """Find, check and split the images under `root`.

    Args:
        root: holds `<class>/…` folders, or `train/` with `val/` or `test/` or both, each of which
            holds `<class>/…` folders. Files whose suffix isn't in `SUFFIXES` are passed over.
        skip_broken: leave files that can't be decoded out, instead of refusing.
        track: shows the progress of the check, which decodes every file once.

    Raises:
        DataError: there is nothing to train on, or a class has too few images.
        BrokenImages: lists the files that can't be decoded.
    """
    if not root.is_dir():
        raise DataError(
            f"data is {str(root)!r}; expected 'digits' or an existing folder with a folder for each class"
        )
    given = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    has_parts = "train" in given and len(given) > 1
    classes = _class_names(given["train"] if has_parts else root)
    if has_parts:
        parts = {name: _find(root, folder, classes) for name, folder in given.items()}
    else:
        parts = {"all": _find(root, root, classes)}

    broken = _broken([path for files in parts.values() for path in files.paths], track)
    if broken and not skip_broken:
        raise BrokenImages(_describe(broken, root))
    parts = {
        name: files.take(i for i, path in enumerate(files.paths) if path not in broken)
        for name, files in parts.items()
    }
    for name, files in parts.items():
        _check_counts(name, files, classes)
    train, val, test, rule = _three(parts, classes)
    return Dataset(
        name=root.resolve().name or "data",
        classes=classes,
        train=train.split(),
        val=val.split(),
        test=test.split(),
        rule=rule,
        defaults=Defaults(),
        skipped=len(broken),
    )


def _three(parts: dict[str, _Files], classes: tuple[str, ...]) -> tuple[_Files, _Files, _Files, str]:
    """Train, val and test from what the user gave, and how, in words."""
    by_hash = "by the SHA-256 of each path relative to the data folder"
    if "all" in parts:
        files = parts["all"]
        test, val, train = partition(
            files.labels, files.keys, (TEST_SHARE, VAL_SHARE), lambda label: classes[label]
        )
        rule = f"of each class {TEST_SHARE:.0%} are test, {VAL_SHARE:.0%} val, the rest train, {by_hash}"
        return files.take(train), files.take(val), files.take(test), rule
    if len(parts) == 3:
        return parts["train"], parts["val"], parts["test"], "train/, val/ and test/ as given"
    reported = "test" if "test" in parts else "val"
    files = parts["train"]
    val, train = partition(files.labels, files.keys, (VAL_SHARE,), lambda label: f"train/{classes[label]}")
    rule = f"test is {reported}/ as given; of each class in train/ {VAL_SHARE:.0%} are val, {by_hash}"
    return files.take(train), files.take(val), parts[reported], rule


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    for name in names:
        if not name.isprintable():
            raise DataError(f"class folder {name!r} in {folder} has a name that can't be printed; rename it")
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} class folder{'s' * (len(names) != 1)}"
            f"{f' ({names[0]!r})' if names else ''}; expected at least 2, such as cats/ and dogs/"
        )
    return tuple(names)


def _find(root: Path, folder: Path, classes: tuple[str, ...]) -> _Files:
    unknown = set(_class_names(folder)) - set(classes)
    if unknown:
        raise DataError(
            f"{folder} has classes that train/ hasn't: {', '.join(sorted(unknown))}; train/ has "
            f"{', '.join(classes)}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = images_under(folder / name)
        paths += found
        labels += [label] * len(found)
    return _Files(paths, labels, [path.relative_to(root).as_posix() for path in paths])


def images_under(folder: Path) -> list[Path]:
    """Every file below `folder` whose suffix is in `SUFFIXES`, sorted; hidden ones are passed over."""
    found = [
        Path(parent, file)
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
        if Path(file).suffix.lower() in SUFFIXES
    ]
    return sorted(path for path in found if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_counts(part: str, files: _Files, classes: tuple[str, ...]) -> None:
    counts = group(files.labels)
    empty = [name for label, name in enumerate(classes) if label not in counts]
    where = "" if part == "all" else f" in {part}/"
    if not files.paths:
        raise DataError(f"no usable image was found{where}; expected {', '.join(sorted(SUFFIXES))}")
    # A test part may lack a class; learning one without images may not.
    if empty and part in ("all", "train"):
        raise DataError(
            f"no usable image was found{where} for {', '.join(map(repr, empty))}; "
            f"expected {', '.join(sorted(SUFFIXES))}"
        )


def _broken(paths: list[Path], track: Track) -> dict[Path, str]:
    """Which files can't be decoded, and why."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        checked = zip(paths, pool.map(_reason, paths), strict=True)
        return {path: reason for path, reason in track(checked, len(paths)) if reason}


def _reason(path: Path) -> str:
    try:
        decode_picture(path.read_bytes(), FILE_LIMITS)
    except InvalidImage as error:
        return str(error)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return ""


def _describe(broken: dict[Path, str], root: Path) -> str:
    lines = [f"  {path.relative_to(root)}: {reason}" for path, reason in list(broken.items())[:_LISTED]]
    if len(broken) > _LISTED:
        lines.append(f"  … and {len(broken) - _LISTED} more")
    return "\n".join(
        [
            f"{len(broken)} broken image file{'s' * (len(broken) != 1)} in {root}:",
            *lines,
            "Mend or remove them, or leave them out with --skip-broken.",
        ]
    )
