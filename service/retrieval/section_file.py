"""Files of named byte sections with a checksum, there whole or not at all.

Magic, length of the header, header (JSON: what it is, and the sections' names and sizes), the sections one
after another, CRC-32 of all before it. Numbers are little-endian.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.retrieval.whole_file import whole_file

MAGIC = b"FOVEA-SECTIONS-1"
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MAX_HEADER_BYTES = 1024 * 1024
# Read or written between two looks at whether to stop.
_BLOCK_BYTES = 4 * 1024 * 1024

Buffer = bytes | NDArray[Any]


class BrokenFile(Exception):
    """Not such a file, or damaged; says what."""


def write_sections(path: Path, header: Mapping[str, Any], sections: Mapping[str, Buffer]) -> None:
    """Write a file in place of what is there.

    Args:
        path: of the file.
        header: what it is; JSON.
        sections: bytes or C-contiguous arrays by name.

    Raises:
        OSError: it can't be written.
    """
    views = {name: _bytes_of(section) for name, section in sections.items()}
    sizes = {name: len(view) for name, view in views.items()}
    text = json.dumps({**header, "sections": sizes}).encode()
    checksum = 0
    with whole_file(path) as partial, partial.open("wb") as file:
        for part in [memoryview(MAGIC + _LENGTH.pack(len(text)) + text), *views.values()]:
            for start in range(0, len(part), _BLOCK_BYTES):
                block = part[start : start + _BLOCK_BYTES]
                checksum = zlib.crc32(block, checksum)
                file.write(block)
        file.write(_CHECKSUM.pack(checksum))


class SectionReader:
    """Reads a file's sections in their order, to where they belong; `finish` says if all was right."""

    def __init__(self, file: FileIO) -> None:
        """Read the header.

        Raises:
            BrokenFile: it isn't such a file.
            OSError: it can't be read.
        """
        self._file, self._checksum = file, 0
        if self._take(len(MAGIC)) != MAGIC:
            raise BrokenFile("it begins with other bytes")
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        if length > _MAX_HEADER_BYTES:
            raise BrokenFile(f"its header has {length:,} bytes; expected at most {_MAX_HEADER_BYTES:,}")
        try:
            self.header: dict[str, Any] = json.loads(self._take(length))
            self.sizes: dict[str, int] = {name: int(size) for name, size in self.header["sections"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenFile(f"its header: {error!r}") from error
        self._waiting = list(self.sizes)

    def read_into(self, name: str, array: NDArray[Any]) -> None:
        """Fill a C-contiguous array with the next section.

        Raises:
            BrokenFile: the next one is another, or of another size.
            OSError: it can't be read.
        """
        view = _bytes_of(array)
        self._expect(name, len(view))
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            if self._file.readinto(block) != len(block):
                raise BrokenFile(f"it ends within section {name}")
            self._checksum = zlib.crc32(block, self._checksum)

    def read(self, name: str) -> bytes:
        """The next section; raises as `read_into`."""
        self._expect(name, None)
        return self._take(self.sizes[name])

    def finish(self) -> None:
        """Check that everything was read, and as it was written.

        Raises:
            BrokenFile: it wasn't.
            OSError: it can't be read.
        """
        if self._waiting:
            raise BrokenFile(f"it has more sections: {', '.join(self._waiting)}")
        if self._file.read(_CHECKSUM.size + 1) != _CHECKSUM.pack(self._checksum):
            raise BrokenFile("its checksum is another")

    def _expect(self, name: str, size: int | None) -> None:
        following = self._waiting.pop(0) if self._waiting else "none"
        if following != name:
            raise BrokenFile(f"its next section is {following}; expected {name}")
        if size is not None and self.sizes[name] != size:
            raise BrokenFile(f"section {name} has {self.sizes[name]:,} bytes; expected {size:,}")

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise BrokenFile("it ends too early")
        self._checksum = zlib.crc32(data, self._checksum)
        return data


def _bytes_of(section: Buffer) -> memoryview:
    if isinstance(section, np.ndarray):
        return section.reshape(-1).view(np.uint8).data if section.size else memoryview(b"")
    return memoryview(section)
