"""Image files made byte by byte, for what Pillow reads but doesn't write."""

import struct
import zlib
from collections.abc import Iterable

PngChunk = tuple[bytes, bytes]

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def png(
    width: int,
    height: int,
    rows: Iterable[bytes],
    *,
    bit_depth: int = 8,
    color_type: int = RGB,
    chunks: Iterable[PngChunk] = (),
) -> bytes:
    """A PNG file of unfiltered `rows`, with `chunks` before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in parts)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(
    width: int,
    height: int,
    data: bytes,
    *,
    bits: int = 8,
    photometric: int = 1,
    samples: int = 1,
    sample_format: int = 1,
    extra_samples: int | None = None,
    orientation: int = 1,
    compression: int = 1,
    byte_order: str = "<",
) -> bytes:
    """A TIFF file of one strip, whose `data` is as `compression` says (1 is none).

    Args:
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK.
        sample_format: 1 unsigned, 2 signed, 3 float.
        extra_samples: 1 premultiplied alpha, 2 alpha.
        byte_order: '<' or '>', of `data` too.
    """
    short, long = 3, 4
    entries = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [bits] * samples),
        (259, short, [compression]),
        (262, short, [photometric]),
        (273, long, [0]),
        (274, short, [orientation]),
        (277, short, [samples]),
        (278, long, [height]),
        (279, long, [len(data)]),
    ]
    if extra_samples is not None:
        entries.append((338, short, [extra_samples]))
    entries.append((339, short, [sample_format] * samples))
    after_directory = 8 + 2 + 12 * len(entries) + 4
    overflow = b"".join(
        struct.pack(f"{byte_order}{len(values)}H", *values) for _, _, values in entries if len(values) > 2
    )
    directory, overflow_at = struct.pack(byte_order + "H", len(entries)), after_directory
    for tag, kind, values in entries:
        directory += struct.pack(byte_order + "HHI", tag, kind, len(values))
        if tag == 273:
            directory += struct.pack(byte_order + "I", after_directory + len(overflow))
        elif len(values) > 2:
            directory += struct.pack(byte_order + "I", overflow_at)
            overflow_at += 2 * len(values)
        else:
            letter = "H" if kind == short else "I"
            directory += struct.pack(f"{byte_order}{len(values)}{letter}", *values).ljust(4, b"\0")
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    return magic + struct.pack(byte_order + "I", 8) + directory + bytes(4) + overflow + data


def tiff_of_parts(width: int, height: int, offsets: list[int], lengths: list[int], **tags: int) -> bytes:
    """A gray TIFF file of strips of one row, or of tiles with `tile_width` and `tile_height`.

    Offsets count from the file's start; the file ends at byte 1,000,000 with zeros.
    """
    compression = tags.pop("compression", 1)
    values: dict[int, list[int]] = {256: [width], 257: [height], 258: [8], 259: [compression], 262: [1]}
    if tags:
        values |= {322: [tags["tile_width"]], 323: [tags["tile_height"]], 324: offsets, 325: lengths}
    else:
        values |= {273: offsets, 278: [1], 279: lengths}
    overflow_at = 8 + 2 + 12 * len(values) + 4
    directory, overflow = struct.pack("<H", len(values)), b""
    for tag, numbers in sorted(values.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            directory += struct.pack("<HHII", tag, 4, len(numbers), overflow_at + len(overflow))
            overflow += packed
        else:
            directory += struct.pack("<HHI", tag, 4, 1) + packed
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + overflow).ljust(1_000_000, b"\0")


def gif_of_size(width: int, height: int, *, extensions: bytes = b"") -> bytes:
    """A GIF whose header and one frame say that they have this size, without pixels."""
    palette = bytes(6)
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + palette
    return (
        screen + extensions + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    )


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP whose header says that it has this size, without pixels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def webp_of_size(width: int, height: int) -> bytes:
    """A lossless WebP whose header says that it has this size, without pixels."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(32)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def jpeg_resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def jpeg_with(jpeg: bytes, segments: bytes) -> bytes:
    """The JPEG with more segments at its start."""
    return jpeg[:2] + segments + jpeg[2:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with_scans(jpeg: bytes, scans: int) -> bytes:
    """The JPEG, of `scans` scans or fewer, with its last scan again and again."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * (scans - jpeg.count(b"\xff\xda")) + jpeg[-2:]


def bmp_run_length_coded(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 256 black colours, coded as `runs`."""
    at = 54 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", at + len(runs), 0, 0, at) + header + bytes(1024) + runs
