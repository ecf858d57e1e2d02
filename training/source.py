"""Where one encoded picture lies: a file of its own, or a member of a tar archive."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidImage


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file inside an uncompressed tar archive, readable without what stands before it.

    Attributes:
        shard: the archive.
        name: of the member.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"


Source = Path | TarMember
"""Of an encoded picture."""


def source_bytes(source: Source) -> bytes:
    """The content of an image file.

    Raises:
        service.errors.InvalidImage: it is no regular file, since reading a pipe might never end; or the
            archive ends before the member does.
        OSError: it can't be read.
    """
    path = source if isinstance(source, Path) else source.shard
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidImage("not a regular file")
    if isinstance(source, Path):
        return source.read_bytes()
    # Opened anew each time: a descriptor that forked loaders share would have one position for all.
    with source.shard.open("rb") as archive:
        archive.seek(source.offset, os.SEEK_SET)
        content = archive.read(source.size)
    if len(content) < source.size:
        raise InvalidImage(f"cut short: {len(content):,} of {source.size:,} bytes")
    return content
