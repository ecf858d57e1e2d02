"""What an image file's bytes say about its cost, read before any decoder sees them."""

import io
import re
import struct
from collections.abc import Collection

from service.errors import InvalidImage

MAX_SCANS = 100
_MAX_SEGMENTS = 1_000
_MAX_READS = 1_000_000
_MAX_TIFF_PARTS = 2**16
_OFFSET_TAGS = {273, 324}  # of strips, of tiles

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEQUENTIAL_FRAMES = {0xC0, 0xC1}
_OTHER_FRAMES = {0xC2, 0xC3, 0xC5, 0xC6, 0xC7}
_ARITHMETIC_FRAMES = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
# Markers that libjpeg acts on: not stuffed zeros, fill bytes or restarts, nor the reserved ones,
# which it skips without looking for a length.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")


class EncodedFile(io.BytesIO):
    """An image file that lets itself be read in a bounded number of steps.

    Pillow reads headers, PNG chunks and run-length coded BMP pixels step by step in Python, holding
    the interpreter lock. A real file takes some thousands; one of 16 MB made of tiny or padding
    pieces would take the whole server's time for ten seconds and more.
    """

    def __init__(self, data: bytes) -> None:
        """Give out `data`."""
        super().__init__(data)
        self._reads_left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does. Raises InvalidImage when there were too many reads."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise InvalidImage(
                "the image file is made of too many small pieces; "
                f"at most {_MAX_READS:,} reading steps are accepted"
            )
        return super().read(size)


def check_jpeg(data: bytes) -> bool:
    """Refuse a JPEG whose cost is out of proportion to its size.

    Every scan of a progressive file passes over all the pixels again, however few bytes it has: a
    1.7 MB file can take ten minutes. Markers are counted, not byte pairs: a phone's motion photo
    has a video behind the picture, in which any pair turns up.

    Args:
        data: a JPEG or MPO file; what follows its first picture doesn't count.

    Returns:
        Whether it is decoded a few rows at a time, because its first scan has all it needs; libjpeg
        reads no second one then, so none is looked for. Of other files the decoder keeps every
        coefficient, 2 bytes each, at full size, until the last scan is read.

    Raises:
        InvalidImage: more than `MAX_SCANS` scans, more than 1,000 segments, or arithmetic coding,
            which browsers don't read either and which makes a scan slower still.
    """
    scans = components = 0
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return False
        marker = found[1][0]
        if marker == _END_OF_IMAGE:
            return False
        body = found.end() + 2
        if marker in _SEQUENTIAL_FRAMES:
            components = int.from_bytes(data[body + 5 : body + 6])
        elif marker in _OTHER_FRAMES:
            components = 0
        elif marker in _ARITHMETIC_FRAMES:
            raise InvalidImage("the JPEG image is arithmetic-coded; expected Huffman coding")
        elif marker == _START_OF_SCAN:
            scans += 1
            if scans == 1 and components and data[body : body + 1] == bytes([components]):
                return True
            if scans > MAX_SCANS:
                total = MAX_SCANS + data.count(b"\xff\xda", found.start())
                raise InvalidImage(f"the JPEG image has {total} scans; at most {MAX_SCANS} are accepted")
        at = found.end() + max(2, int.from_bytes(data[found.end() : body]))
    raise InvalidImage(f"the JPEG image has more than {_MAX_SEGMENTS:,} segments before its end")


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF file of too many strips or tiles.

    Each costs the set-up of a decoder, and Pillow lists them all, in Python, on opening. The first
    directory is looked at, as much of it as there is.

    Raises:
        InvalidImage: more than 65,536 of them.
    """
    order = "<" if data.startswith(b"II") else ">"
    entry, number, start = ("HHQ8x", "Q", 8) if data[2:3] == b"+" else ("HHI4x", "H", 4)
    try:
        (at,) = struct.unpack_from(order + ("Q" if start == 8 else "I"), data, start)
        (count,) = struct.unpack_from(order + number, data, at)
    except (struct.error, OverflowError):  # Pillow says it better
        return
    at += struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    count = min(count, (len(data) - at) // size)
    for tag, _, parts in struct.iter_unpack(order + entry, data[at : at + count * size]):
        if tag in _OFFSET_TAGS and parts > _MAX_TIFF_PARTS:
            raise InvalidImage(
                f"the TIFF image has {parts:,} strips or tiles; at most {_MAX_TIFF_PARTS:,} are accepted"
            )


def check_jpeg_parts(data: bytes, parts: Collection[tuple[int, int]]) -> None:
    """The same for the JPEG streams inside a TIFF file.

    Args:
        data: the TIFF file.
        parts: offset and length of each strip or tile in it.

    Raises:
        InvalidImage: one part has more than `MAX_SCANS` scans, or parts lie over each other.
    """
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    distinct = set(parts)
    if sum(min(length, len(data)) for _, length in distinct) > 2 * len(data):
        raise InvalidImage("the TIFF image's JPEG strips or tiles overlap")
    for offset, length in distinct:
        scans = data.count(b"\xff\xda", offset, offset + length)
        if scans > MAX_SCANS:
            raise InvalidImage(
                f"the TIFF image has {scans} JPEG scans in one strip or tile; "
                f"at most {MAX_SCANS} are accepted"
            )
