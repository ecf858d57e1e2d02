"""What a data source holds, before any picture is decoded: the same for folders, tables and shards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.errors import DataError
from training.source import Source
from training.splits import MULTI_LABEL, SINGLE_LABEL, Split

Labels = tuple[int, ...]
"""A picture's classes, as ascending indices; exactly one where the task is single_label."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture.

    Attributes:
        source: where it lies.
        labels: its classes.
        name: what messages and splits.json call it.
        key: what its split is drawn from.
        content: a digest of its bytes; empty before the check.
    """

    source: Source
    labels: Labels
    name: str
    key: str
    content: bytes = b""


@dataclass(frozen=True)
class Listing:
    """A data source's pictures in the parts that its owner made.

    Attributes:
        name: short, for the run's folder.
        origin: the folder, table or pattern, for messages.
        classes: to learn, in the order of the labels.
        parts: the pictures of 'train' and of 'val' or 'test' or both; or of `layout.ALL` alone.
        titles: what the owner calls each part, such as 'train/'.
        keyed_by: what the key of a picture is, in words.
        expected: what would have been found as a picture, in words.
        task: 'single_label' or 'multi_label'.
        passed_over: what else lies there, in words; empty for nothing.
        damaged: names and faults of what can't be listed to its end.
    """

    name: str
    origin: Path
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Entry]]
    titles: Mapping[str, str]
    keyed_by: str
    expected: str
    task: str = SINGLE_LABEL
    passed_over: str = ""
    damaged: tuple[tuple[str, str], ...] = ()


def check_recordable(origin: Path) -> None:
    """Refuse a path that config.toml couldn't hold.

    Raises:
        DataError: it isn't UTF-8.
    """
    try:
        str(origin.resolve()).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the data's path is {str(origin.resolve())!a}; expected UTF-8, so that the run can record it: "
            "rename it"
        ) from None


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: sorted, by their value where all are whole numbers, else as text."""
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def check_class_names(names: Sequence[str], origin: Path, task: str) -> None:
    """Refuse what can't be learned.

    Raises:
        DataError: there are too few classes, or one has a name that can't be printed.
    """
    least = 1 if task == MULTI_LABEL else 2
    if len(names) < least:
        held = f" ({names[0]!r})" if names else ""
        raise DataError(
            f"{origin} has {len(names)} class{'es' * (len(names) != 1)}{held} to learn; expected at least "
            f"{least}"
        )
    for name in names:
        if not name.isprintable():
            raise DataError(f"{origin} has a class {name!r}, whose name can't be printed; rename it")


def split_of(entries: Iterable[Entry], classes: int, task: str) -> Split:
    """The pictures and their labels, in the order given."""
    kept = list(entries)
    sources = [entry.source for entry in kept]
    if task == SINGLE_LABEL:
        return Split(sources, np.array([entry.labels[0] for entry in kept], np.int64))
    labels = np.zeros((len(kept), classes), np.uint8)
    for row, entry in enumerate(kept):
        labels[row, list(entry.labels)] = 1
    return Split(sources, labels)
