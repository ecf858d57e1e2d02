"""WebDataset shards → a listing: tar archives in which files with the same key are one sample.

A sample is an image (key.jpg, key.png …) and its class: key.cls or key.txt with a number or a text, or
key.json with a number, a text, a list of them, or an object that has one at "label" or "labels". Lists and
"labels" make the task multi-label.

Shards are read by their index and not as a stream: once, every header is read and each image's place in
its archive kept, so that a picture has a number as it has in a folder. Only so are the split, the order of
an epoch and where a killed run resumes the same for every kind of data, and shuffling is a true shuffle, not
one of a buffer. Plain tar archives can be read at any place, so the index costs no copy of the data.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.errors import DataError
from training.image_files import describe_passed_over, find_images
from training.layout import ALL, PART_NAMES, PART_OF
from training.listing import Entry, Listing, check_class_names, check_recordable, class_order
from training.samples import Sample, read_samples
from training.splits import MULTI_LABEL, SINGLE_LABEL

SHARD_SUFFIX = ".tar"
# Names of the classes by number, one a line, beside the shards.
CLASS_NAMES = ("classes.txt", "labels.txt")
_LISTED = 5
# A slip such as {0..9999999999} would take all memory.
_MOST = 100_000
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
_PATTERN = re.compile(r"[{*?\[]")


def is_shards(data: str) -> bool:
    """Whether this is an archive, a pattern of archives, or a folder that holds some and no images.

    Raises:
        DataError, OSError: a folder can't be read.
    """
    path = Path(data)
    if path.is_dir():
        # What images were unpacked from often lies beside them.
        return bool(_in_folder(path)) and not find_images(path).paths
    return path.suffix.lower() == SHARD_SUFFIX or (not path.exists() and is_pattern(data))


def is_pattern(data: str) -> bool:
    """Whether it has braces or wildcards."""
    return _PATTERN.search(data) is not None


def find_shards(data: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the archives, sorted.

    Args:
        data: an archive; a folder that holds archives, or train/, val/ or test/ with archives in them; or a
            pattern with braces (`train-{000..009}.tar`) or wildcards.

    Raises:
        DataError: there are none, or some that the pattern names are missing.
    """
    path = Path(data)
    if path.is_dir():
        found = sorted(_in_folder(path))
        root = path
    elif path.exists():
        found, root = [path], path.parent
    else:
        found = _expanded(data)
        root = Path(os.path.commonpath([shard.parent for shard in found])) if found else path
    if not found:
        raise DataError(f"data is {data!r}; expected {SHARD_SUFFIX} shards there, found none")
    return root, found


def list_shards(data: str) -> Listing:
    """Index labelled shards.

    Raises:
        DataError: an archive is missing or compressed, a sample has no label or one that can't be used
            (named by shard and key), or the parts don't fit each other.
    """
    root, shards = find_shards(data)
    check_recordable(root)
    read = read_samples(shards, root)
    if not read.samples:
        faults = "".join(f"\n  {name}: {fault}" for name, fault in read.damaged[:_LISTED])
        raise DataError(f"{data} has no samples with an image in {len(shards):,} shards{faults}")
    parts = _parts(root, read.samples)
    task = _task(read.samples)
    classes = class_order(
        label for sample in parts.get(ALL) or parts["train"] for label in sample.labels or ()
    )
    check_class_names(classes, root, task)
    index = {label: position for position, label in enumerate(classes)}
    return Listing(
        name=shards[0].stem if Path(data).is_file() else root.resolve().name or "shards",
        origin=Path(data),
        classes=_class_names(root, classes),
        parts={part: [_entry(sample, index) for sample in having] for part, having in parts.items()},
        titles={part: f"the {part} shards" for part in parts if part != ALL},
        keyed_by="each sample's key",
        expected="samples with an image",
        task=task,
        passed_over=describe_passed_over(read.passed_over),
        damaged=tuple(read.damaged),
    )


def part_of(shard: Path, root: Path) -> str:
    """The part that a word of the archive's name, or the folder it lies in, names; else `layout.ALL`.

    Raises:
        DataError: it names two.
    """
    words = re.split(r"[^a-z]+", shard.stem.casefold())
    words += [parent.casefold() for parent in shard.relative_to(root).parts[:-1]]
    named = {PART_OF[word] for word in words if word in PART_OF}
    if len(named) > 1:
        raise DataError(f"{shard} is named after {' and '.join(sorted(named))}; expected one of them")
    return named.pop() if named else ALL


def _in_folder(folder: Path) -> list[Path]:
    within = [
        folder,
        *(entry for entry in folder.iterdir() if entry.name.casefold() in PART_OF and entry.is_dir()),
    ]
    return [
        entry
        for place in within
        for entry in place.iterdir()
        if entry.suffix.lower() == SHARD_SUFFIX and not entry.name.startswith(".")
    ]


def _expanded(pattern: str) -> list[Path]:
    # What WebDataset itself expands its patterns with.
    from braceexpand import braceexpand

    # The library writes a range out before it gives the first of it.
    ranges = [abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(pattern)]
    if math.prod(ranges) > _MOST:
        raise DataError(f"data is {pattern!r}, which names more than {_MOST:,} shards; expected fewer")
    try:
        names = [Path(name) for name in braceexpand(pattern)]
    except ValueError as error:
        raise DataError(f"data is {pattern!r}, with braces that don't match: {error}") from error
    found: list[Path] = []
    missing: list[str] = []
    for name in names:
        if is_pattern(name.name):
            there = sorted(name.parent.glob(name.name))
        else:
            there = [name] if name.exists() else []
        found += there
        missing += [] if there else [str(name)]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise DataError(f"shards are missing: {', '.join(missing[:_LISTED])}{more}")
    return sorted(set(found))


def _parts(root: Path, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(part_of(sample.shard, root), []).append(sample)
    if set(parts) == {ALL} or ("train" in parts and len(parts) > 1 and ALL not in parts):
        return {part: parts[part] for part in (ALL, *PART_NAMES) if part in parts}
    held = ", ".join(
        f"{len({sample.shard for sample in having}):,} {'of no part' if part == ALL else part}"
        for part, having in parts.items()
    )
    raise DataError(
        f"{root} has shards named after parts: {held}; expected train with val or test or both, or no parts"
    )


def _task(samples: Iterable[Sample]) -> str:
    many: dict[bool, Sample] = {}
    for sample in samples:
        if sample.labels is None:
            raise DataError(
                f"{sample.name} has no label; expected .cls, .txt or .json beside the image in the shard"
            )
        many.setdefault(sample.several, sample)
    if len(many) == 2:
        raise DataError(
            f"{many[False].name} has one label and {many[True].name} a list of them; expected the same of all"
        )
    return MULTI_LABEL if True in many else SINGLE_LABEL


def numbered_names(root: Path) -> dict[str, str]:
    """Number → the name that a file beside the shards gives to that class; empty where there is no file.

    Raises:
        DataError: the file can't be read, or has a name that is empty, can't be printed or stands twice.
    """
    file = next((root / name for name in CLASS_NAMES if (root / name).is_file()), None)
    if file is None:
        return {}
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read: {error}") from error
    check_class_names(names, file, MULTI_LABEL)
    if "" in names or len(set(names)) < len(names):
        raise DataError(f"{file} has a line that is empty or stands twice; expected a name for each class")
    return {str(number): name for number, name in enumerate(names)}


def _class_names(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    names = numbered_names(root)
    if not names or not all(label.isascii() and label.isdigit() for label in classes):
        return classes
    unnamed = [label for label in classes if label not in names]
    if unnamed:
        raise DataError(
            f"the shards in {root} have the class {unnamed[0]}, but {' or '.join(CLASS_NAMES)} there names "
            f"0 to {len(names) - 1}"
        )
    return tuple(names[label] for label in classes)


def _entry(sample: Sample, index: dict[str, int]) -> Entry:
    unknown = [label for label in sample.labels or () if label not in index]
    if unknown:
        raise DataError(
            f"{sample.name}: {unknown[0]!r} is no class of the train shards, which have {', '.join(index)}"
        )
    return Entry(
        sample.source, tuple(sorted(index[label] for label in sample.labels or ())), sample.name, sample.key
    )
