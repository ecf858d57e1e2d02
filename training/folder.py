"""A folder of images, a subfolder for each class → a data set whose test images were never seen before."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.errors import BrokenImages, DataError
from training.image_check import LISTED, Track, check_images, describe_broken, untracked
from training.image_files import SUFFIXES, describe_passed_over, find_images
from training.layout import ALL, class_names, parts_of, training_classes
from training.splits import Dataset, Defaults, Split, partition

TEST_SHARE = 0.15
VAL_SHARE = 0.15


@dataclass(frozen=True)
class _File:
    """An image file.

    Attributes:
        path: of the file.
        label: index of its class.
        key: the path relative to the data folder, with slashes.
        content: a digest; empty before the check.
    """

    path: Path
    label: int
    key: str
    content: bytes = b""


_Parts = dict[str, list[_File]]


def read_folder(root: Path, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """Find, check and split the images under `root`.

    Files with the same bytes never stand in two parts.

    Args:
        root: holds `<class>/…` folders, or the parts that `layout` names, each of which holds
            `<class>/…` folders. Files whose suffix isn't in `SUFFIXES` are passed over.
        skip_broken: leave files that can't be decoded out, instead of refusing.
        track: shows the progress of the check, which decodes every file once.

    Raises:
        DataError: there is nothing to train on, a class has too few images, or an image two classes.
        BrokenImages: lists the files that can't be decoded.
    """
    try:
        folders, classes, parts, passed_over = _find(root)
    except OSError as error:
        raise DataError(f"{error.filename or root}: can't be read: {error.strerror}") from error
    notes = [describe_passed_over(passed_over)]
    found = [file.key for files in parts.values() for file in files]

    checked = check_images([file.path for files in parts.values() for file in files], track)
    broken = [file for file in checked if file.fault]
    if broken and not skip_broken:
        raise BrokenImages(describe_broken(broken, root))
    if broken:
        notes.append(f"left out {len(broken):,} broken image file{'s' * (len(broken) != 1)}")
    contents = {file.path: file.digest for file in checked if not file.fault}
    parts = {
        name: [replace(file, content=contents[file.path]) for file in files if file.path in contents]
        for name, files in parts.items()
    }
    _refuse_two_classes(parts, classes)
    for name, files in parts.items():
        _check_counts(name, folders[name], files, classes, notes[0])
    if ALL not in parts:
        parts, copies = _without_copies(parts)
        if copies:
            notes.append(
                f"left out {copies:,} image{'s' * (copies != 1)} with copies in a part that is scored on"
            )
        for name, files in parts.items():
            _check_counts(name, folders[name], files, classes, "copies of what other parts hold don't count")
    splits, rule = _three(parts, folders, classes)
    used = {file.key for files in splits.values() for file in files}
    return Dataset(
        name=root.resolve().name or "data",
        classes=classes,
        train=_split(splits["train"]),
        val=_split(splits["val"]),
        test=_split(splits["test"]),
        rule=rule,
        defaults=Defaults(),
        notes=tuple(note for note in notes if note),
        names={
            "val": [file.key for file in splits["val"]],
            "test": [file.key for file in splits["test"]],
            "left_out": [key for key in found if key not in used],
        },
    )


def _find(root: Path) -> tuple[dict[str, Path], tuple[str, ...], _Parts, Counter[str]]:
    """The parts' folders, the classes, each part's files, and how many were passed over, by suffix."""
    try:
        str(root.resolve()).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the data folder's path is {str(root.resolve())!a}; expected UTF-8, so that the run can record "
            "it: rename it"
        ) from None
    if not root.is_dir():
        raise DataError(
            f"data is {str(root)!r}; expected 'digits' or an existing folder with a folder for each class"
        )
    folders = parts_of(root)
    classes = training_classes(folders.get(ALL) or folders["train"])
    parts: _Parts = {}
    passed_over: Counter[str] = Counter()
    for part, folder in folders.items():
        unknown = set(class_names(folder)) - set(classes)
        if unknown:
            raise DataError(
                f"{folder} has classes that {folders['train'].name}/ hasn't: {', '.join(sorted(unknown))}; "
                f"{folders['train'].name}/ has {', '.join(classes)}"
            )
        parts[part] = []
        passed_over["outside the class folders"] += sum(
            entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in folder.iterdir()
        )
        for label, name in enumerate(classes):
            if not (folder / name).is_dir():
                continue
            found = find_images(folder / name)
            parts[part] += [_File(path, label, path.relative_to(root).as_posix()) for path in found.paths]
            passed_over += found.passed_over
    return folders, classes, parts, +passed_over


def _refuse_two_classes(parts: _Parts, classes: tuple[str, ...]) -> None:
    first: dict[bytes, _File] = {}
    clashes = []
    for file in (file for files in parts.values() for file in files):
        other = first.setdefault(file.content, file)
        if other.label != file.label:
            clashes.append(
                f"  {other.key} ({classes[other.label]!r}) and {file.key} ({classes[file.label]!r})"
            )
    if clashes:
        more = [f"  … and {len(clashes) - LISTED} more"] if len(clashes) > LISTED else []
        raise DataError(
            "\n".join(
                [
                    f"{len(clashes)} image{'s' * (len(clashes) != 1)} with the same bytes in two classes; "
                    "expected one class for each:",
                    *clashes[:LISTED],
                    *more,
                ]
            )
        )


def _without_copies(parts: _Parts) -> tuple[_Parts, int]:
    """Leave out of train what val or test holds, and of val what test holds; and how many that were."""
    kept: _Parts = {}
    taken: set[bytes] = set()
    for name in ("test", "val", "train"):
        if name in parts:
            kept[name] = [file for file in parts[name] if file.content not in taken]
            taken |= {file.content for file in parts[name]}
    left_out = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    return {name: kept[name] for name in parts}, left_out


def _check_counts(part: str, folder: Path, files: list[_File], classes: tuple[str, ...], remark: str) -> None:
    there = {file.label for file in files}
    empty = [repr(name) for label, name in enumerate(classes) if label not in there]
    # A part that is scored on may lack a class; learning one without images may not.
    if files and (not empty or part not in (ALL, "train")):
        return
    where = "" if part == ALL else f" in {folder.name}/"
    whose = f" for {', '.join(empty)}" if files else ""
    raise DataError(
        f"no usable image was found{where}{whose}; expected {', '.join(sorted(SUFFIXES))}"
        f"{f' ({remark})' if remark else ''}"
    )


def _three(parts: _Parts, folders: Mapping[str, Path], classes: tuple[str, ...]) -> tuple[_Parts, str]:
    """Train, val and test from what the user gave, and how, in words."""
    by_hash = "by the SHA-256 of each path relative to the data folder, copies together"
    if ALL in parts:
        files = parts[ALL]
        test, val, train = _divided(files, (TEST_SHARE, VAL_SHARE), classes, "")
        rule = f"of each class {TEST_SHARE:.0%} are test, {VAL_SHARE:.0%} val, the rest train, {by_hash}"
        return {"train": train, "val": val, "test": test}, rule
    names = {part: f"{folder.name}/" for part, folder in folders.items()}
    if len(parts) == 3:
        return parts, f"{names['train']}, {names['val']} and {names['test']} as given"
    reported = "test" if "test" in parts else "val"
    val, train = _divided(parts["train"], (VAL_SHARE,), classes, names["train"])
    rule = (
        f"test is {names[reported]} as given; of each class in {names['train']} {VAL_SHARE:.0%} are val, "
        f"{by_hash}"
    )
    return {"train": train, "val": val, "test": parts[reported]}, rule


def _divided(
    files: list[_File], shares: tuple[float, ...], classes: tuple[str, ...], where: str
) -> list[list[_File]]:
    indices = partition(
        [file.label for file in files],
        [file.key for file in files],
        shares,
        lambda label: f"{where}{classes[label]}",
        [file.content for file in files],
    )
    return [[files[i] for i in part] for part in indices]


def _split(files: Iterable[_File]) -> Split:
    kept = list(files)
    return Split([file.path for file in kept], np.asarray([file.label for file in kept], np.int64))
