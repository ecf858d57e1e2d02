"""Every kind of picture gives its exact pixels, and every bad one an error that says what is wrong."""

import contextlib
import gc
import io
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from service import encoded, image
from service.errors import InvalidImage
from service.image import ImageLimits, RawImage, decode, decode_picture, from_raw, open_image
from service.preprocess import Picture, Preprocessing, preprocess
from tests.service.picture_files import (
    GRAY,
    GRAY_ALPHA,
    PALETTE,
    RGB_ALPHA,
    bmp_of_size,
    bmp_run_length_coded,
    gif_of_size,
    jpeg_resized,
    jpeg_segment,
    jpeg_with,
    jpeg_with_scans,
    png,
    tiff,
    tiff_of_parts,
    webp_of_size,
)

Pixels = NDArray[np.uint8]

WHITE, BLACK = [255, 255, 255], [0, 0, 0]
RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def save(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def shorts(*values: int, order: str = ">") -> bytes:
    return struct.pack(f"{order}{len(values)}H", *values)


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    """20 rows × 30 columns, every pixel its own colour."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


PALETTE_CHUNK = (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
EXACT: dict[str, tuple[bytes, list[list[int]]]] = {
    "png 8-bit rgb": (png(2, 1, [bytes([1, 2, 3, 4, 5, 6])]), [[1, 2, 3], [4, 5, 6]]),
    "png 8-bit gray": (png(2, 1, [bytes([7, 200])], color_type=GRAY), [[7] * 3, [200] * 3]),
    "png 1-bit gray": (png(2, 1, [b"\x40"], bit_depth=1, color_type=GRAY), [BLACK, WHITE]),
    "png 2-bit gray": (
        png(4, 1, [b"\x1b"], bit_depth=2, color_type=GRAY),
        [BLACK, [85] * 3, [170] * 3, WHITE],
    ),
    "png 4-bit gray": (png(2, 1, [b"\x1e"], bit_depth=4, color_type=GRAY), [[17] * 3, [238] * 3]),
    "png 16-bit gray": (
        png(2, 1, [shorts(0x1234, 0xFFFF)], bit_depth=16, color_type=GRAY),
        [[0x12] * 3, WHITE],
    ),
    "png 16-bit rgb": (
        png(1, 1, [shorts(0x1234, 0x56FF, 0xFF00)], bit_depth=16),
        [[0x12, 0x56, 0xFF]],
    ),
    "png 16-bit gray with alpha": (
        png(2, 1, [shorts(0x1234, 0xFFFF, 0x1234, 0)], bit_depth=16, color_type=GRAY_ALPHA),
        [[0x12] * 3, WHITE],
    ),
    "png 16-bit rgb with alpha": (
        png(1, 1, [shorts(0x1234, 0x5678, 0x9ABC, 0xFFFF)], bit_depth=16, color_type=RGB_ALPHA),
        [[0x12, 0x56, 0x9A]],
    ),
    "png rgb with alpha over white": (
        png(3, 1, [bytes([9, 9, 9, 0, 0, 0, 0, 128, 9, 8, 7, 255])], color_type=RGB_ALPHA),
        [WHITE, [127] * 3, [9, 8, 7]],
    ),
    "png gray with alpha over white": (
        png(3, 1, [bytes([9, 0, 0, 128, 9, 255])], color_type=GRAY_ALPHA),
        [WHITE, [127] * 3, [9] * 3],
    ),
    "png palette": (
        png(3, 1, [bytes([0, 1, 2])], color_type=PALETTE, chunks=[PALETTE_CHUNK]),
        [RED, GREEN, BLUE],
    ),
    "png palette with alpha": (
        png(3, 1, [bytes([0, 1, 2])], color_type=PALETTE, chunks=[PALETTE_CHUNK, (b"tRNS", bytes([0, 128]))]),
        [WHITE, [127, 255, 127], BLUE],
    ),
    "png 1-bit palette with alpha": (
        png(2, 1, [b"\x40"], bit_depth=1, color_type=PALETTE, chunks=[PALETTE_CHUNK, (b"tRNS", b"\0\xff")]),
        [WHITE, GREEN],
    ),
    "png transparent gray": (
        png(2, 1, [bytes([7, 8])], color_type=GRAY, chunks=[(b"tRNS", shorts(7))]),
        [WHITE, [8] * 3],
    ),
    "png transparent 2-bit gray": (
        png(4, 1, [b"\x1b"], bit_depth=2, color_type=GRAY, chunks=[(b"tRNS", shorts(1))]),
        [BLACK, WHITE, [170] * 3, WHITE],
    ),
    "png transparent 16-bit gray": (
        png(
            2, 1, [shorts(0x1234, 0x0034)], bit_depth=16, color_type=GRAY, chunks=[(b"tRNS", shorts(0x1234))]
        ),
        [WHITE, BLACK],
    ),
    "png transparent rgb": (
        png(2, 1, [bytes([1, 2, 3, 1, 2, 4])], chunks=[(b"tRNS", shorts(1, 2, 3))]),
        [WHITE, [1, 2, 4]],
    ),
    "png transparent 16-bit rgb": (
        png(
            2,
            1,
            [shorts(0x12FF, 0x56FF, 0x9AFF, 0xFF00, 0xFF00, 0xFF00)],
            bit_depth=16,
            chunks=[(b"tRNS", shorts(0x12FF, 0x56FF, 0x9AFF))],
        ),
        [WHITE, WHITE],
    ),
    "png transparent 16-bit rgb, another colour": (
        png(1, 1, [shorts(0xFF00, 0xFF00, 0)], bit_depth=16, chunks=[(b"tRNS", shorts(0xFF, 0xFF, 0))]),
        [[255, 255, 0]],
    ),
    "png with a broken animation": (
        png(1, 1, [bytes([1, 2, 3])], chunks=[(b"acTL", bytes(8))]),
        [[1, 2, 3]],
    ),
    "tiff 8-bit gray": (tiff(2, 1, bytes([7, 200])), [[7] * 3, [200] * 3]),
    "tiff 8-bit gray, white is zero": (tiff(2, 1, bytes([0, 200]), photometric=0), [WHITE, [55] * 3]),
    "tiff 12-bit gray": (tiff(2, 1, bytes([0x12, 0x3F, 0xFF]), bits=12), [[0x12] * 3, WHITE]),
    "tiff 16-bit gray, little-endian": (
        tiff(2, 1, shorts(0x1234, 0xFFFF, order="<"), bits=16),
        [[0x12] * 3, WHITE],
    ),
    "tiff 16-bit gray, big-endian": (
        tiff(2, 1, shorts(0x1234, 0xFFFF), bits=16, byte_order=">"),
        [[0x12] * 3, WHITE],
    ),
    "tiff 16-bit gray, white is zero": (
        tiff(2, 1, shorts(0x1234, 0xFFFF, order="<"), bits=16, photometric=0),
        [[0xED] * 3, BLACK],
    ),
    "tiff 16-bit rgb, little-endian": (
        tiff(1, 1, shorts(0x1234, 0x5678, 0xFF00, order="<"), bits=16, samples=3, photometric=2),
        [[0x12, 0x56, 0xFF]],
    ),
    "tiff 16-bit rgb, big-endian": (
        tiff(1, 1, shorts(0x1234, 0x5678, 0xFF00), bits=16, samples=3, photometric=2, byte_order=">"),
        [[0x12, 0x56, 0xFF]],
    ),
    "tiff rgb with alpha": (
        tiff(2, 1, bytes([9, 9, 9, 0, 1, 2, 3, 255]), samples=4, photometric=2, extra_samples=2),
        [WHITE, [1, 2, 3]],
    ),
    "tiff gray with premultiplied alpha": (
        tiff(2, 1, bytes([0, 0, 9, 255]), samples=2, extra_samples=1),
        [WHITE, [9] * 3],
    ),
    "tiff cmyk": (
        tiff(2, 1, bytes([255, 0, 0, 0, 0, 0, 0, 255]), samples=4, photometric=5),
        [[0, 255, 255], BLACK],
    ),
    "tiff 16-bit cmyk": (
        tiff(1, 1, shorts(0xFFFF, 0, 0, 0, order="<"), bits=16, samples=4, photometric=5),
        [[0, 255, 255]],
    ),
    "bmp 1-bit": (save(Image.new("1", (1, 1), 1), "BMP"), [WHITE]),
    "bmp rgb": (save(Image.new("RGB", (1, 1), (1, 2, 3)), "BMP"), [[1, 2, 3]]),
    "gif": (save(Image.new("RGB", (1, 1), (255, 0, 0)), "GIF"), [RED]),
    "webp with alpha": (
        save(Image.new("RGBA", (1, 1), (9, 9, 9, 0)), "WEBP", lossless=True, exact=True),
        [WHITE],
    ),
}


@pytest.mark.parametrize(("data", "expected"), EXACT.values(), ids=EXACT)
def test_pixels_are_exact(data: bytes, expected: list[list[int]]) -> None:
    pixels = decode(data)
    assert pixels.tolist() == [expected]
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_round_trip(file_format: str, noise: Image.Image) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    assert np.array_equal(decode(save(noise, file_format, **options)), np.asarray(noise))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_round_trips(compression: str, noise: Image.Image) -> None:
    assert np.array_equal(decode(save(noise, "TIFF", compression=compression)), np.asarray(noise))


# Flat colours survive JPEG to within the rounding of its colour space.
@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (200, 30, 90), [200, 30, 90]),
        ("L", 77, [77, 77, 77]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("CMYK", (0, 0, 0, 255), BLACK),
        ("CMYK", (0, 0, 0, 0), WHITE),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(mode: str, color: tuple[int, ...], expected: list[int], progressive: bool) -> None:
    data = save(Image.new(mode, (16, 8), color), "JPEG", quality=100, progressive=progressive)
    pixels = decode(data)
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_first_picture_of_many(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 4), tuple(color)) for color in (RED, GREEN, BLUE)]
    options: dict[str, Any] = {"lossless": True} if file_format == "WEBP" else {}
    data = save(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as picture:
        assert getattr(picture, "n_frames", 1) == 3, "the file has to have three pictures for this to test"
    assert np.abs(decode(data).astype(int) - RED).max() <= (2 if file_format == "MPO" else 0)


# Where the pixels of a stored picture go. The comments say at which side of the picture its stored
# row 0 and column 0 are, in the words of the EXIF standard (tag 0x0112).
ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.transpose(1, 0, 2),  # left, top
    6: lambda stored: np.rot90(stored, -1),  # right, top
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),  # right, bottom
    8: lambda stored: np.rot90(stored),  # left, bottom
}


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "TIFF LZW"])
def test_exif_orientation_is_applied(orientation: int, file_format: str, noise: Image.Image) -> None:
    options: dict[str, Any] = {"exif": exif_with(orientation)}
    if file_format == "WEBP":
        options["lossless"] = True
    if file_format == "TIFF LZW":
        options["compression"] = "tiff_lzw"
    pixels = decode(save(noise, file_format.split()[0], **options))
    assert np.array_equal(pixels, ORIENTATIONS[orientation](np.asarray(noise)))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_of_a_jpeg(orientation: int, noise: Image.Image) -> None:
    upright = decode(save(noise, "JPEG"))
    pixels = decode(save(noise, "JPEG", exif=exif_with(orientation)))
    assert np.array_equal(pixels, ORIENTATIONS[orientation](upright))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_of_16_bit_gray(orientation: int) -> None:
    data = tiff(2, 2, shorts(0x0000, 0x1000, 0x2000, 0x3000, order="<"), bits=16, orientation=orientation)
    stored = np.array([[0x00, 0x10], [0x20, 0x30]], np.uint8)[..., None].repeat(3, axis=2)
    assert np.array_equal(decode(data), ORIENTATIONS[orientation](stored))


@pytest.mark.parametrize(
    "exif",
    [
        exif_with(9),
        exif_with(0),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4sI", 0x0112, 2, 2, b"6", 0),
        b"Exif\0\0II*\0\x08\0\0\0",
        b"Exif\0\0nonsense",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12",
        b"",
    ],
    ids=["9", "0", "text", "cut short", "not TIFF", "too many entries", "empty"],
)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_broken_exif_leaves_the_picture(
    exif: Image.Exif | bytes, file_format: str, noise: Image.Image
) -> None:
    assert np.array_equal(decode(save(noise, file_format, exif=exif)), decode(save(noise, file_format)))


NOT_AN_IMAGE = "not an image, or its header is broken"
BROKEN = "broken or cut short"
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"the image is empty \(0 bytes\)"),
    "text": (b"Dear Sir or Madam", NOT_AN_IMAGE),
    "html": (b"<html>404</html>", r"start with b'<html>40'; expected one of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NOT_AN_IMAGE),
    "zeros": (bytes(1000), NOT_AN_IMAGE),
    "postscript, which Pillow would run Ghostscript for": (
        save(Image.new("RGB", (8, 8)), "EPS"),
        NOT_AN_IMAGE,
    ),
    "another format of Pillow's": (save(Image.new("RGB", (8, 8)), "PPM"), NOT_AN_IMAGE),
    "png of 0 × 0": (png(0, 0, []), "zero pixels"),
    "png of 0 × 1": (png(0, 1, [b""]), "zero pixels"),
    "png of 1 × 0": (png(1, 0, []), "zero pixels"),
    "gif of 0 × 0": (gif_of_size(0, 0), "zero pixels"),
    "bmp of 0 × 0": (bmp_of_size(0, 0), "zero pixels"),
    "tiff of 0 × 1": (tiff(0, 1, b""), "zero pixels"),
    "jpeg of 0 × 5": (jpeg_resized(save(Image.new("RGB", (8, 8)), "JPEG"), 0, 5), "zero pixels"),
    "jpeg of 5 × 0": (jpeg_resized(save(Image.new("RGB", (8, 8)), "JPEG"), 5, 0), "zero pixels"),
    "png without its pixels": (png(9, 9, []), f"the PNG image is {BROKEN}"),
    "gif without its pixels": (gif_of_size(9, 9), f"the GIF image is {BROKEN}"),
    "bmp without its pixels": (bmp_of_size(9, 9), f"the BMP image is {BROKEN}"),
    "webp without its pixels": (webp_of_size(9, 9), f"the WEBP image is {BROKEN}"),
    "tiff without its pixels": (tiff(9, 9, b""), f"the TIFF image is {BROKEN}"),
    "tiff of floats": (
        tiff(1, 1, struct.pack("<f", 0.5), bits=32, sample_format=3),
        "TIFF image has pixels of Pillow's mode 'F'; expected 8 or 16 bits per channel",
    ),
    "tiff of 32-bit integers": (
        tiff(1, 1, struct.pack("<i", 5), bits=32, sample_format=2),
        "mode 'I'; expected 8 or 16",
    ),
    "tiff of signed 16-bit integers": (
        tiff(1, 1, struct.pack("<h", -5), bits=16, sample_format=2),
        "mode 'I'; expected 8 or 16",
    ),
    "tiff of doubles": (
        tiff(1, 1, struct.pack("<d", 0.5), bits=64, sample_format=3),
        "pixel format that isn't read",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_image_is_refused_with_its_reason(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        decode(data)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9])
def test_truncated_image_is_refused(
    file_format: str, options: dict[str, Any], part: float, noise: Image.Image
) -> None:
    data = save(noise, file_format, **options)
    with pytest.raises(InvalidImage, match=r"broken|cut short"):
        decode(data[: int(len(data) * part)])


def test_too_many_bytes() -> None:
    limits = ImageLimits(max_bytes=1000)
    with pytest.raises(InvalidImage, match="the image has 1,001 bytes; at most 1,000 are accepted"):
        decode(bytes(1001), limits)
    with pytest.raises(InvalidImage, match=NOT_AN_IMAGE):
        decode(bytes(1000), limits)


BOMBS = {
    "png": png(16000, 16000, [bytes(48000)]),
    "png of one row": png(2**31 - 1, 1, []),
    "jpeg": jpeg_resized(save(Image.new("RGB", (8, 8)), "JPEG"), 16000, 16000),
    "gif": gif_of_size(16000, 16000),
    "bmp": bmp_of_size(16000, 16000),
    "webp": webp_of_size(16000, 16000),
    "tiff": tiff(16000, 16000, b""),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_too_many_pixels_are_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str | None] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loads.append(self.format))
    with pytest.raises(InvalidImage, match=r"× .* pixels; at most 50,000,000 are accepted"):
        decode(data)
    assert loads == []


def test_gif_frame_beyond_its_screen_counts() -> None:
    data = bytearray(gif_of_size(16000, 16000))
    data[6:10] = struct.pack("<HH", 2, 2)
    with pytest.raises(InvalidImage, match="16000 × 16000"):
        decode(bytes(data))


def test_huge_tile_of_a_small_tiff_is_refused() -> None:
    tiled = tiff(64, 64, bytes(100))
    # Orientation and SamplesPerPixel have defaults, so their entries can become the tile's sizes.
    for tag, tile_tag in ((274, 322), (277, 323)):
        at = tiled.index(struct.pack("<HHI", tag, 3, 1))
        tiled = tiled[:at] + struct.pack("<HHIHH", tile_tag, 3, 1, 20000, 0) + tiled[at + 12 :]
    with pytest.raises(InvalidImage, match="tiles of 20000 × 20000 = 400,000,000 pixels"):
        decode(tiled)


def test_pixel_limit_is_exact(noise: Image.Image) -> None:
    data = save(noise, "PNG")
    assert decode(data, ImageLimits(max_pixels=600)).shape == (20, 30, 3)
    with pytest.raises(InvalidImage, match="30 × 20 = 600 pixels; at most 599"):
        decode(data, ImageLimits(max_pixels=599))


def test_decode_picture_gives_the_same_pixels(noise: Image.Image) -> None:
    data = save(noise, "PNG")
    picture = decode_picture(data)
    assert picture.image.mode == "RGB"
    assert np.array_equal(np.asarray(picture.image), decode(data))
    assert (picture.width, picture.height, picture.box) == (30, 20, (0, 0, 30, 20))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_opening_decodes_nothing(
    file_format: str, noise: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save(noise, file_format)
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
        opened = open_image(data)
    assert opened.pixels == 600
    picture = opened.decode()
    assert picture.image.mode == "RGB"
    assert np.array_equal(np.asarray(picture.image), decode(data))
    with pytest.raises(ValueError, match="decoded before"):
        opened.decode()


def test_broken_pixels_are_found_in_decoding(noise: Image.Image) -> None:
    opened = open_image(save(noise, "PNG")[:-200])
    with pytest.raises(InvalidImage, match="the PNG image is broken or cut short"):
        opened.decode()


def test_pixels_of_a_tile_that_is_larger_than_its_picture_count() -> None:
    data = tiff_of_parts(64, 64, [900_000], [100], tile_width=160, tile_height=320)
    assert open_image(data).pixels == 160 * 320


def test_rows_of_a_narrow_picture_count_for_their_pointers() -> None:
    assert open_image(png(1, 100, [bytes(3)] * 100)).pixels == 400
    assert open_image(png(5, 100, [bytes(15)] * 100)).pixels == 500


def test_conversion_in_blocks_is_exact(noise: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    translucent = noise.copy()
    translucent.putalpha(noise.getchannel(1))
    palette = noise.quantize(16)
    wide = np.random.default_rng(2).integers(0, 2**16, (20, 30), dtype=np.uint16)
    key = int(wide[3, 4])
    files = [
        save(translucent, "PNG"),
        save(translucent, "WEBP", lossless=True),
        save(noise, "WEBP", lossless=True),
        save(palette, "GIF", transparency=3),
        save(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        save(noise.convert("L"), "PNG"),
        save(noise.convert("CMYK"), "JPEG"),
        png(
            30,
            20,
            [shorts(*row) for row in wide],
            bit_depth=16,
            color_type=GRAY,
            chunks=[(b"tRNS", shorts(key))],
        ),
    ]
    whole = [decode(data) for data in files]
    for pixels in (1, 7, 64, 30 * 7):  # parts of a row; some rows
        monkeypatch.setattr(image, "_BLOCK_PIXELS", pixels)
        for data, expected in zip(files, whole, strict=True):
            assert np.array_equal(decode(data), expected)


def test_no_memory_is_not_the_callers_fault(noise: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    data = save(noise, "PNG")
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", fail)
        with pytest.raises(MemoryError):
            decode(data)
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "getexif", fail)
        with pytest.raises(MemoryError):
            decode(data)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode(data)


def pictures_in_memory() -> set[int]:
    gc.collect()
    # By its type: isinstance would ask each object for its __class__, and some of torch's warn.
    return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), ImageFile.ImageFile)}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_an_error_that_is_kept_keeps_no_pixels(file_format: str, noise: Image.Image) -> None:
    before = pictures_in_memory()
    opened = open_image(save(noise, file_format)[:-120] if file_format != "TIFF" else tiff(9, 9, b""))
    assert pictures_in_memory() > before
    with pytest.raises(InvalidImage, match=BROKEN) as caught:
        opened.decode()
    assert pictures_in_memory() <= before
    assert BROKEN in str(caught.value)


def test_a_decoded_webp_keeps_no_canvases(noise: Image.Image) -> None:
    before = pictures_in_memory()
    opened = open_image(save(noise, "WEBP"))
    picture = opened.decode()
    assert pictures_in_memory() <= before
    assert picture.image.size == noise.size


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_of_decoding_is_bounded() -> None:
    # In a process of its own, whose peak is these files' alone. Before there were blocks it was 5 to
    # 6 times the picture's memory.
    side = 4000
    program = f"""
import io, zlib
from PIL import Image
from service.image import decode_picture
from tests.service.picture_files import GRAY, RGB_ALPHA, png
side = {side}
def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
rgba = Image.new("RGBA", (side, side), (1, 2, 3, 100))
gif = io.BytesIO()
Image.new("P", (side, side)).save(gif, "GIF", transparency=0)
rgba_file = io.BytesIO()
rgba.save(rgba_file, "PNG", compress_level=1)
del rgba
wide = png(side, side, [bytes(2 * side)] * side, bit_depth=16, color_type=GRAY, chunks=[(b"tRNS", b"\\0\\1")])
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
start = peak()
for data in (rgba_file.getvalue(), gif.getvalue(), wide):
    decode_picture(data)
print(peak() - start)
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert int(run.stdout) < 3 * 4 * side**2


def progressive(noise: Image.Image) -> bytes:
    return save(noise, "JPEG", progressive=True)


def test_a_hundred_scans_are_decoded(noise: Image.Image) -> None:
    # The last scan refines the last bit: what it says twice it says once.
    data = jpeg_with_scans(progressive(noise), 100)
    assert data.count(b"\xff\xda") == 100
    assert decode(data).shape == (20, 30, 3)


@pytest.mark.parametrize("file_format", ["JPEG", "MPO"])
@pytest.mark.parametrize("scans", [101, 5000])
def test_more_scans_are_refused(
    file_format: str, scans: int, noise: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    data = jpeg_with_scans(progressive(noise), scans)
    if file_format == "MPO":
        options: dict[str, Any] = {"save_all": True, "append_images": [noise], "progressive": True}
        at = (pair := save(noise, "MPO", **options)).index(b"\xff\xd9")
        data = jpeg_with_scans(pair[: at + 2], scans) + pair[at + 2 :]
        scans += pair[at:].count(b"\xff\xda")
    with pytest.raises(InvalidImage, match=f"the JPEG image has {scans} scans; at most 100 are accepted"):
        decode(data)


def test_scans_hidden_behind_reserved_markers_count(noise: Image.Image) -> None:
    # libjpeg skips these without a length, so what seems to be their body is read.
    data = progressive(noise)
    last = data.rindex(b"\xff\xda")
    scan = b"\xff\x05\x40\0" + data[last:-2]
    with pytest.raises(InvalidImage, match="has 101 scans"):
        decode(data[:last] + scan * (101 - data[:last].count(b"\xff\xda")) + data[-2:])


def test_bytes_that_look_like_scans_do_not_count(noise: Image.Image) -> None:
    data = progressive(noise)
    looks = b"\xff\xda\0\2" * 10_000
    commented = jpeg_with(data, jpeg_segment(0xFE, looks))
    assert np.array_equal(decode(commented), decode(data))
    assert np.array_equal(decode(data + b"\0\2" + looks), decode(data)), "as in a phone's motion photo"


def jpeg_in_tiff(scans: int, noise: Image.Image) -> bytes:
    jpeg = jpeg_with_scans(save(noise.convert("L"), "JPEG", progressive=True), scans)
    return tiff(30, 20, jpeg, compression=7)


def test_scans_of_a_jpeg_in_a_tiff_count(noise: Image.Image) -> None:
    assert decode(jpeg_in_tiff(99, noise)).shape == (20, 30, 3)
    with pytest.raises(InvalidImage, match="TIFF image has 101 JPEG scans in one strip or tile; at most 100"):
        decode(jpeg_in_tiff(101, noise))
    old = jpeg_in_tiff(101, noise).replace(struct.pack("<HHIHH", 259, 3, 1, 7, 0), b"OLD")
    assert b"OLD" in old
    with pytest.raises(InvalidImage, match="TIFF image has 101 JPEG scans"):
        decode(old.replace(b"OLD", struct.pack("<HHIHH", 259, 3, 1, 6, 0)))


def test_a_tiff_of_many_jpeg_strips_is_decoded() -> None:
    gray = Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(2048, 2).repeat(4, axis=1))
    data = save(gray, "TIFF", compression="jpeg", strip_size=64)
    assert data.count(b"\xff\xda") > 100
    assert decode(data).shape == (2048, 8, 3)


def test_jpeg_strips_over_each_other_are_refused() -> None:
    data = bytearray(tiff_of_parts(8, 200, list(range(200)), [900_000] * 200, compression=7))
    data[-300:] = b"\xff\xda" * 150
    with pytest.raises(InvalidImage, match="strips or tiles overlap"):
        decode(bytes(data))


def test_arithmetic_coding_is_refused(noise: Image.Image) -> None:
    data = progressive(noise)
    with pytest.raises(InvalidImage, match="arithmetic-coded; expected Huffman coding"):
        decode(data.replace(b"\xff\xc2", b"\xff\xca", 1))


def test_too_many_jpeg_segments_are_refused(noise: Image.Image) -> None:
    # Pillow joins the EXIF segments one by one: 160,000 of them take minutes.
    exif = jpeg_segment(0xE1, b"Exif\0\0" + bytes(90))
    data = save(noise, "JPEG")
    assert np.array_equal(decode(jpeg_with(data, exif * 900)), decode(data))
    with pytest.raises(InvalidImage, match="more than 1,000 segments"):
        decode(jpeg_with(data, exif * 1001))


def test_too_many_strips_are_refused_before_pillow_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("opened"))
    with pytest.raises(InvalidImage, match="65,537 strips or tiles; at most 65,536 are accepted"):
        decode(tiff_of_parts(1, 65_537, [0] * 65_537, [1] * 65_537))
    tiles = {"tile_width": 16, "tile_height": 16}
    with pytest.raises(InvalidImage, match="70,000 strips or tiles"):
        decode(tiff_of_parts(1, 70_000 * 16, [0] * 70_000, [1] * 70_000, **tiles))
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + struct.pack("<HHQQ", 273, 16, 10**9, 0)
    with pytest.raises(InvalidImage, match="1,000,000,000 strips or tiles"):
        decode(big)


def test_large_tiles_of_a_narrow_tiff_are_refused() -> None:
    # A tile of 48 million zeros is 47 kB of deflate, and each of the hundred would be decoded whole.
    tiles = {"tile_width": 16, "tile_height": 3_000_000}
    data = tiff_of_parts(1600, 1, [900_000] * 100, [1000] * 100, compression=8, **tiles)
    with pytest.raises(
        InvalidImage, match=r"100 tiles of 16 × 3000000 pixels, in all 4,800,000,000; at most 100,000,000"
    ):
        decode(data)


PIECES = {
    "jpeg padding": jpeg_with(save(Image.new("RGB", (8, 8)), "JPEG"), b"\xff" * 1000),
    "png chunks": png(1, 1, [bytes(3)], chunks=[(b"abCd", b"")] * 1000),
    "gif extensions": gif_of_size(8, 8, extensions=b"!\x01\x01a\0" * 1000),
    "bmp runs": bmp_run_length_coded(1000, 1000, b"\x01\x05" * 2000),
    "tiff strips": tiff_of_parts(1, 1000, [0] * 1000, [1] * 1000),
}


@pytest.mark.parametrize("data", PIECES.values(), ids=PIECES)
def test_too_many_small_pieces_are_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "_MAX_READS", 1000)
    with pytest.raises(InvalidImage, match="too many small pieces; at most 1,000 reading steps"):
        decode(data)


def test_opening_a_gif_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # "Restore to background" made Pillow fill a picture of the frame's size on opening.
    filled: list[tuple[int, int]] = []
    monkeypatch.setattr("PIL.Image.core.fill", lambda mode, size, *color: filled.append(size))
    for disposal in (1, 2, 3):
        control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, disposal << 2 | 1, 0, 0, 0)
        with pytest.raises(InvalidImage, match="65535 × 65535"):
            decode(gif_of_size(65535, 65535, extensions=control))
    assert filled == []


def test_exif_of_a_megabyte_is_not_read() -> None:
    def turned(padding: int) -> bytes:
        block = exif_with(6).tobytes()[6:] + bytes(padding)
        return png(2, 1, [bytes(6)], chunks=[(b"eXIf", block)])

    assert decode(turned(1000)).shape == (2, 1, 3)
    assert decode(turned(2**20)).shape == (1, 2, 3)


def test_a_long_reason_is_shortened(noise: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError("x" * 10_000)

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(InvalidImage) as caught:
        decode(save(noise, "PNG"))
    assert len(str(caught.value)) < 300


def ramps(width: int, height: int) -> Image.Image:
    """Brightness rises and falls by 4 levels a pixel across and by 3 down: a shift shows everywhere."""
    down, across = np.mgrid[0:height, 0:width]
    red = 127 - np.abs(across * 4 % 256 - 128) + 64
    green = 127 - np.abs(down * 3 % 256 - 128) + 64
    return Image.fromarray(np.stack([red, green, 128 + 0 * red], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "least", "scale"),
    [
        ((79, 200), 40, 1),
        ((80, 200), 40, 2),
        ((200, 80), 40, 2),
        ((159, 159), 40, 2),
        ((161, 1001), 40, 4),
        ((319, 333), 40, 4),
        ((320, 321), 40, 8),
        ((1700, 1601), 40, 8),
        ((4, 4), 1, 4),
        ((5, 3), 1, 2),
        ((1, 1), 1, 1),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_will_do(
    size: tuple[int, int], least: int, scale: int, progressive: bool
) -> None:
    data = save(ramps(*size), "JPEG", quality=90, progressive=progressive)
    opened = open_image(data, least_short_side=least)
    scaled = (-(-size[0] // scale), -(-size[1] // scale))
    # Of a progressive file the decoder keeps what it needs for the whole size.
    pixels = size if progressive else scaled
    assert opened.pixels == max(4, pixels[0]) * pixels[1]
    picture = opened.decode()
    assert picture.image.size == scaled
    assert (picture.width, picture.height) == size
    assert picture.box == (0.0, 0.0, size[0] / scale, size[1] / scale)
    drafted = Image.open(io.BytesIO(data))
    drafted.draft(None, (size[0] // scale, size[1] // scale))
    assert np.array_equal(np.asarray(picture.image), np.asarray(drafted))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(803, 605), (605, 803), (801, 601)], ids=str)
def test_a_scaled_picture_keeps_its_place(orientation: int, size: tuple[int, int]) -> None:
    spec = Preprocessing(48, 48, 48)
    data = save(ramps(*size), "JPEG", quality=100, subsampling=0, exif=exif_with(orientation))
    whole, scaled = decode_picture(data), decode_picture(data, least_short_side=75)
    assert scaled.image.width * 7 < whole.image.width, "at an eighth"
    assert (scaled.width, scaled.height) == (whole.width, whole.height)
    expected = preprocess(whole, spec).astype(int)
    assert np.abs(preprocess(scaled, spec) - expected).mean() < 1


def test_a_picture_out_of_place_would_show() -> None:
    spec = Preprocessing(48, 48, 48)
    data = save(ramps(801, 601), "JPEG", quality=100, subsampling=0, exif=exif_with(3))
    expected = preprocess(decode_picture(data), spec).astype(int)
    ignored = Picture.whole(decode_picture(data, least_short_side=75).image)
    assert np.abs(preprocess(ignored, spec) - expected).mean() > 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("file_format", ["JPEG", "MPO"])
def test_every_kind_of_jpeg_is_scaled(mode: str, file_format: str) -> None:
    options: dict[str, Any] = {}
    picture = ramps(200, 160).convert(mode)
    if file_format == "MPO":
        options = {"save_all": True, "append_images": [picture.rotate(180)]}
    data = save(picture, file_format, quality=95, **options)
    scaled = decode_picture(data, least_short_side=40)
    assert scaled.image.mode == "RGB"
    assert scaled.image.size == (50, 40)
    spec = Preprocessing(20, 20, 20)
    assert np.abs(preprocess(scaled, spec).astype(int) - preprocess(decode(data), spec)).mean() < 4


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "TIFF JPEG"])
def test_other_formats_are_never_scaled(file_format: str) -> None:
    options = {"compression": "jpeg"} if file_format == "TIFF JPEG" else {}
    data = save(ramps(200, 160), file_format.split()[0], **options)
    picture = decode_picture(data, least_short_side=1)
    assert np.array_equal(np.asarray(picture.image), decode(data))
    assert picture.box == (0, 0, 200, 160)


def test_scaling_weakens_no_limit(noise: Image.Image) -> None:
    big = save(ramps(200, 160), "JPEG")
    with pytest.raises(InvalidImage, match="200 × 160 = 32,000 pixels; at most 31,999"):
        open_image(big, ImageLimits(max_pixels=31_999), least_short_side=1)
    with pytest.raises(InvalidImage, match="at most 10 are accepted"):
        open_image(big, ImageLimits(max_bytes=10), least_short_side=1)
    with pytest.raises(InvalidImage, match="has 101 scans"):
        open_image(jpeg_with_scans(progressive(noise), 101), least_short_side=1)
    with pytest.raises(InvalidImage, match=BROKEN):
        open_image(big[:-200], least_short_side=1).decode()


def test_impossible_least_short_side_is_refused(noise: Image.Image) -> None:
    with pytest.raises(ValueError, match="least_short_side is 0; expected at least 1"):
        open_image(save(noise, "JPEG"), least_short_side=0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_of_scaled_decoding_is_what_is_counted() -> None:
    # In a process of its own, as above. At full size the pixels alone are 64 MB.
    program = """
import sys
from service.image import decode, open_image
def peak(kind):
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().split(kind)[1].split()[0])
small, *sizes = map(int, sys.argv[1:])
decode(sys.stdin.buffer.read(small))  # what the first decode of a process loads
for size in sizes:
    data = sys.stdin.buffer.read(size)
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    start = peak("VmRSS:")
    opened = open_image(data, least_short_side=500)
    opened.decode()
    print(peak("VmHWM:") - start, opened.pixels)
"""
    flat = Image.new("RGB", (4000, 4000), (200, 90, 10))
    files = [save(ramps(8, 8), "JPEG")] + [save(flat, "JPEG", progressive=kept) for kept in (False, True)]
    run = subprocess.run(
        [sys.executable, "-c", program, *(str(len(file)) for file in files)],
        input=b"".join(files),
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    (row_by_row, few), (kept, many) = (map(int, line.split()) for line in run.stdout.splitlines())
    assert (few, many) == (500 * 500, 4000 * 4000)
    assert row_by_row < 12 * few
    assert 2 * many < kept < 12 * many


def test_a_scan_of_some_components_keeps_the_whole_size() -> None:
    def jpeg(frame: int, components: int, scanned: int) -> bytes:
        sizes = b"\x08" + struct.pack(">HHB", 64, 64, components)
        parts = b"".join(bytes([number, 0x11, 0]) for number in range(components))
        scan = bytes([scanned]) + b"\x01\0" * scanned + b"\0\x3f\0"
        return b"\xff\xd8" + jpeg_segment(frame, sizes + parts) + jpeg_segment(0xDA, scan)

    assert encoded.check_jpeg(jpeg(0xC0, 3, 3))
    assert encoded.check_jpeg(jpeg(0xC1, 1, 1))
    assert not encoded.check_jpeg(jpeg(0xC0, 3, 1))
    assert not encoded.check_jpeg(jpeg(0xC2, 3, 3)), "progressive"
    assert not encoded.check_jpeg(b"\xff\xd8" + jpeg_segment(0xDA, b"\x03")), "no frame"


def test_a_second_scan_of_a_whole_one_is_not_decoded(noise: Image.Image) -> None:
    # libjpeg ends at the first: more of them cost nothing.
    data = save(noise, "JPEG")
    at = data.rindex(b"\xff\xda")
    again = data[:-2] + data[at:-2] * 5000 + data[-2:]
    with contextlib.suppress(InvalidImage):
        assert np.array_equal(decode(again), decode(data))


def test_raw_pixels() -> None:
    data = bytes(range(24))
    pixels = from_raw(RawImage(data, height=2, width=4))
    assert pixels.tolist() == np.arange(24).reshape(2, 4, 3).tolist()
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("size", "height", "width", "message"),
    [
        (23, 2, 4, r"has 23 bytes; expected height × width × 3 = 2 × 4 × 3 = 24"),
        (25, 2, 4, r"has 25 bytes"),
        (0, 0, 4, r"4 × 0 pixels; expected at least 1 × 1"),
        (0, 4, 0, r"0 × 4 pixels"),
        (0, 2**32 - 1, 2**32 - 1, r"at most 50,000,000"),
    ],
)
def test_bad_raw_pixels(size: int, height: int, width: int, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        from_raw(RawImage(bytes(size), height, width))


def test_a_file_that_pillow_warns_of_is_decoded_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    # Outside of pytest, whose own warning filters stand before the service's.
    data, _ = EXACT["png with a broken animation"]
    program = f"from service.image import decode; print(decode({data!r}).tolist())"
    subprocess.run(
        [sys.executable, "-W", "default", "-c", program], check=True, cwd=Path(__file__).parents[2]
    )
    assert capfd.readouterr() == ("[[[1, 2, 3]]]\n", "")


def seeds() -> list[bytes]:
    colors = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(colors)
    files = [save(picture, kind, exif=exif_with(6)) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    files += [save(picture, "GIF"), save(picture, "BMP"), save(picture.convert("CMYK"), "JPEG")]
    files += [save(picture, "TIFF", compression="tiff_lzw"), save(picture.convert("LA"), "PNG")]
    files += [
        save(picture, kind, save_all=True, append_images=[picture.rotate(90)]) for kind in ("PNG", "MPO")
    ]
    return files + [data for data, _ in EXACT.values()]


SEEDS = seeds()
SMALL = ImageLimits(max_pixels=100_000)


@settings(max_examples=500, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
    least=st.sampled_from([None, 1, 3]),
)
@example(data=SEEDS[0], flips=[], kept=1.0, least=None)
def test_any_damage_gives_pixels_or_invalid_image(
    data: bytes, flips: list[tuple[float, int]], kept: float, least: int | None
) -> None:
    damaged = bytearray(data)
    for place, bits in flips:
        damaged[int(place * len(damaged))] ^= bits
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            picture = decode_picture(bytes(damaged[: int(kept * len(damaged))]), SMALL, least)
        except InvalidImage:
            pass
        else:
            assert picture.image.mode == "RGB"
            assert 1 <= picture.width * picture.height <= SMALL.max_pixels
            assert 1 <= picture.image.width * picture.image.height <= SMALL.max_pixels
            left, top, right, bottom = picture.box
            assert 0 <= left < right <= picture.image.width
            assert 0 <= top < bottom <= picture.image.height
    assert [str(warning.message) for warning in caught] == []


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), magic=st.sampled_from([seed[:16] for seed in SEEDS[:6]] + [b""]))
def test_arbitrary_bytes_give_pixels_or_invalid_image(data: bytes, magic: bytes) -> None:
    with contextlib.suppress(InvalidImage):
        assert decode(magic + data, SMALL).ndim == 3


def test_webp_is_compiled_in() -> None:
    assert features.check("webp"), "Pillow without WebP would refuse a format that the contract promises"
