"""Every picture decoded once before training: what is broken, and which are copies of each other."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidImage
from service.image import decode_picture
from training.source import Source, source_bytes
from training.splits import FILE_LIMITS

# A folder that is broken altogether needn't be listed to its end.
LISTED = 50
_SPAN = 4096


@dataclass(frozen=True)
class Checked:
    """One encoded picture.

    Attributes:
        source: where it lies.
        fault: why it can't be used; empty where it can.
        digest: SHA-256 of its bytes; empty where they can't be read.
    """

    source: Source
    fault: str
    digest: bytes


Track = Callable[[Iterable[Checked], int], Iterable[Checked]]
"""Passes files on, and shows how many of the total went by."""


def untracked(files: Iterable[Checked], _total: int) -> Iterable[Checked]:
    """Shows no progress."""
    return files


def check_images(sources: Sequence[Source], track: Track = untracked) -> list[Checked]:
    """Read and decode every picture, in the order given."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        # A pool takes on all that it is given at once, at a thousand bytes each.
        spans = (sources[first : first + _SPAN] for first in range(0, len(sources), _SPAN))
        checks = (check for span in spans for check in pool.map(_check, span))
        return list(track(checks, len(sources)))


def describe_broken(broken: Sequence[tuple[str, str]], origin: Path | str) -> str:
    """Names and faults, a line each, and what to do."""
    return (
        f"{_counted(broken)} in {origin}:\n{_listed(broken)}\n"
        "Mend or remove them, or leave them out with --skip-broken."
    )


def describe_left_out(broken: Sequence[tuple[str, str]]) -> str:
    """Names and faults, a line each, of what was skipped."""
    return f"left out {_counted(broken)}:\n{_listed(broken)}"


def _counted(broken: Sequence[tuple[str, str]]) -> str:
    return f"{len(broken):,} broken image file{'s' * (len(broken) != 1)}"


def _listed(broken: Sequence[tuple[str, str]]) -> str:
    lines = [f"  {name}: {fault}" for name, fault in broken[:LISTED]]
    if len(broken) > LISTED:
        lines.append(f"  … and {len(broken) - LISTED:,} more")
    return "\n".join(lines)


def _check(source: Source) -> Checked:
    digest = b""
    try:
        content = source_bytes(source)
        digest = hashlib.sha256(content).digest()
        decode_picture(content, FILE_LIMITS)
    except InvalidImage as error:
        return Checked(source, str(error), digest)
    except OSError as error:
        return Checked(source, f"can't be read: {error.strerror}", digest)
    return Checked(source, "", digest)
