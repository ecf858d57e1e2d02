"""Which files of a folder are images."""

import os
from collections.abc import Iterator
from pathlib import Path

# The same that training reads from a folder; a test compares them.
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def image_files(folder: Path) -> Iterator[Path]:
    """Every image file under a folder, in no order, without hidden files and folders."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield path
