"""Which files of a folder are images."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

# The same that training reads from a folder; a test compares them.
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def image_files(folder: Path, *, strict: bool = False) -> Iterator[Path]:
    """Every image file under a folder, without hidden files and folders; the order stays the same.

    Args:
        folder: where.
        strict: raise OSError where a folder can't be read, instead of passing it over.
    """
    for parent, folders, names in os.walk(folder, onerror=_refuse if strict else None):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield path


def _refuse(error: OSError) -> NoReturn:
    raise error
