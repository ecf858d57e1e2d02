"""Image files below a folder, known by their suffix."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from training.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
# A tree of odds and ends needn't be listed to its end.
_LISTED_KINDS = 8


@dataclass(frozen=True)
class Found:
    """What lies below a folder, without what is hidden.

    Attributes:
        paths: image files, sorted.
        passed_over: how many others, by suffix in lower case.
    """

    paths: list[Path]
    passed_over: Counter[str]


def find_images(folder: Path) -> Found:
    """Every file below `folder` whose suffix is in `SUFFIXES`.

    Files and folders whose names start with a dot are left alone. `folder` may be a link; links to
    folders further down aren't followed, since they may lead back up or to images found already.

    Raises:
        DataError: a folder can't be read.
    """
    paths: list[Path] = []
    passed_over: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        passed_over["link to a folder"] += sum(Path(parent, name).is_symlink() for name in folders)
        for name in files:
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in SUFFIXES:
                paths.append(path)
            else:
                passed_over[path.suffix.lower() or "without a suffix"] += 1
    return Found(sorted(paths), +passed_over)


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
    """Such as '5 files were passed over: 4 .heic, 1 .txt'; empty for none."""
    if not passed_over:
        return ""
    total = sum(passed_over.values())
    kinds = [f"{count:,} {kind}" for kind, count in Counter(passed_over).most_common(_LISTED_KINDS)]
    if len(passed_over) > _LISTED_KINDS:
        kinds.append("…")
    were = "file was" if total == 1 else "files were"
    return f"{total:,} {were} passed over: {', '.join(kinds)}"


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: can't be read: {error.strerror}") from error
