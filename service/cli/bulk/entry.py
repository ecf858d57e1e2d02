"""One image of a source: where it lies, what it is called, what is known of it."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Less than a message may have by default, for what else it carries.
MAX_IMAGE_BYTES = 16 * 1024 * 1024 - 64 * 1024


class Unusable(Exception):
    """An image that can't be indexed; the message says why, with the value and what was expected."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside an uncompressed tar archive.

    Attributes:
        shard: the archive.
        name: of the member.
        offset: of its first byte in the archive.
        size_bytes: of the member.
    """

    shard: Path
    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An image to index.

    Attributes:
        id: of its item.
        place: where its bytes are.
        attributes: as the source has them: a table's cells are texts or numbers, None where they are empty.
        fault: why it can't be used, where the source says so already; else empty.
    """

    id: str
    place: Path | TarMember
    attributes: Mapping[str, object]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells, without reading a file, that it is the same as before.

    Attributes:
        size_bytes: of the image.
        modified_ns: when its file was written last, ns since 1970.
    """

    size_bytes: int
    modified_ns: int


def stamp_of(place: Path | TarMember) -> Stamp:
    """Look at a file without reading it.

    Raises:
        Unusable: it isn't there, isn't a regular file (reading a pipe might never end), or is too large for
            a message.
    """
    path = place if isinstance(place, Path) else place.shard
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("isn't a regular file; expected an image file")
    size_bytes = status.st_size if isinstance(place, Path) else place.size_bytes
    if size_bytes > MAX_IMAGE_BYTES:
        raise Unusable(f"has {size_bytes:,} bytes; expected at most {MAX_IMAGE_BYTES:,}")
    return Stamp(size_bytes, status.st_mtime_ns)


def content_of(place: Path | TarMember) -> bytes:
    """The bytes of an image.

    Raises:
        Unusable: as `stamp_of`; or they can't be read, or the archive ends before them.
    """
    stamp_of(place)  # opening a pipe would wait for a writer
    try:
        if isinstance(place, Path):
            with place.open("rb") as file:
                content = file.read(MAX_IMAGE_BYTES + 1)
            if len(content) > MAX_IMAGE_BYTES:  # it has grown meanwhile
                raise Unusable(f"has more than {MAX_IMAGE_BYTES:,} bytes; expected at most that many")
            return content
        with place.shard.open("rb") as archive:
            archive.seek(place.offset)
            content = archive.read(place.size_bytes)
    except OSError as error:
        raise _unreadable(error) from error
    if len(content) < place.size_bytes:
        raise Unusable(f"is cut short: {len(content):,} of {place.size_bytes:,} bytes")
    return content


def digest(content: bytes) -> str:
    """SHA-256 in hex: equal contents have equal vectors."""
    return hashlib.sha256(content).hexdigest()


def text(name: str) -> str:
    """A file's name as valid UTF-8, which file systems don't promise."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def _unreadable(error: OSError | ValueError) -> Unusable:
    reason = error.strerror if isinstance(error, OSError) else ""
    return Unusable(f"can't be read: {reason or error}")
