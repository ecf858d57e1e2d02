"""A file that is there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The path of a hidden file to write, which takes the place of `path` on leaving, on the disk.

    A kill at any moment leaves the old file or the new one, and perhaps the hidden one; an error inside
    leaves the old one.

    Raises:
        OSError: it can't be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what a kill has left in a folder that nobody writes to just now.

    Raises:
        OSError: it can't be removed.
    """
    for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until what is in a file, or which names are in a folder, is on the disk.

    Raises:
        OSError: it can't be opened or written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
