"""Every file decoded once before training: what is broken, and which files are copies of each other."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidImage
from service.image import decode_picture
from training.source import source_bytes
from training.splits import FILE_LIMITS

# A folder that is broken altogether needn't be listed to its end.
LISTED = 50


@dataclass(frozen=True)
class Checked:
    """One image file.

    Attributes:
        path: of the file.
        fault: why it can't be used; empty where it can.
        digest: SHA-256 of its bytes; empty where they can't be read.
    """

    path: Path
    fault: str
    digest: bytes


Track = Callable[[Iterable[Checked], int], Iterable[Checked]]
"""Passes files on, and shows how many of the total went by."""


def untracked(files: Iterable[Checked], _total: int) -> Iterable[Checked]:
    """Shows no progress."""
    return files


def check_images(paths: list[Path], track: Track = untracked) -> list[Checked]:
    """Read and decode every file, in the order given."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        return list(track(pool.map(_check, paths), len(paths)))


def describe_broken(broken: list[Checked], root: Path) -> str:
    """The files with their faults, a line each."""
    lines = [f"  {file.path.relative_to(root)}: {file.fault}" for file in broken[:LISTED]]
    if len(broken) > LISTED:
        lines.append(f"  … and {len(broken) - LISTED} more")
    return "\n".join(
        [
            f"{len(broken)} broken image file{'s' * (len(broken) != 1)} in {root}:",
            *lines,
            "Mend or remove them, or leave them out with --skip-broken.",
        ]
    )


def _check(path: Path) -> Checked:
    digest = b""
    try:
        content = source_bytes(path)
        digest = hashlib.sha256(content).digest()
        decode_picture(content, FILE_LIMITS)
    except InvalidImage as error:
        return Checked(path, str(error), digest)
    except OSError as error:
        return Checked(path, f"can't be read: {error.strerror}", digest)
    return Checked(path, "", digest)
