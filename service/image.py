"""Encoded bytes or raw pixels → RGB uint8 [height, width, 3], with every limit checked before decoding."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (  # Pillow opens only the formats whose plugins are imported
    BmpImagePlugin,  # noqa: F401 - registers itself, as do the next ones
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401 - as above; opens the MPO files of many phones too
    PngImagePlugin,  # noqa: F401 - as above
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - as above
)

from service.encoded import EncodedFile, check_jpeg, check_jpeg_parts, check_tiff
from service.errors import InvalidImage, shorten

# Ours is explicit, applies to every format and is checked before decoding; Pillow's would warn or
# raise first, with advice about denial of service that the caller can't act on.
Image.MAX_IMAGE_PIXELS = None
# About oddities of a caller's file that Pillow copes with; what it doesn't cope with is raised.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_PLUGINS = tuple("STILL GIF" if name == "GIF" else name for name in FORMATS)
_MAX_EXIF_BYTES = 2**20  # Pillow reads it entry by entry; a JPEG segment holds 64 kB
_TIFF_JPEG, _TIFF_OLD_JPEG = 7, 6
_LEAST_ROW_PIXELS = 4
_BLOCK_PIXELS = 2**20  # what is converted at a time
_EIGHT_BIT_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "P"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}


class _StillGif(GifImagePlugin.GifImageFile):
    """A GIF without what only its second frame needs.

    On opening, Pillow fills as many bytes as the first frame has pixels with what is to be left of
    it, before its size can be checked: 4 GiB for a file of 45 bytes.
    """

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, 0 if name == "disposal_method" else value)


Image.register_open("STILL GIF", _StillGif, lambda prefix: prefix.startswith((b"GIF87a", b"GIF89a")))


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded.

    Attributes:
        max_bytes: size of the encoded file.
        max_pixels: width × height, read from the header before decoding.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True)
class RawImage:
    """Pixels that somebody else decoded.

    Attributes:
        data: uint8 [height, width, 3] RGB in C order, as bytes.
        height, width: in pixels.
    """

    data: bytes
    height: int
    width: int


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode one image file.

    The first picture of an animated or many-paged file is taken, EXIF orientation is applied,
    transparency is laid over white, 16-bit channels keep their high byte, CMYK is converted.
    Colour profiles are ignored, as the training data's were.

    Args:
        data: a file's bytes, in one of `FORMATS`.
        limits: what is too large.

    Returns:
        uint8 [height, width, 3], RGB, C-contiguous.

    Raises:
        InvalidImage: says what is wrong with it.
    """
    return np.ascontiguousarray(np.asarray(decode_picture(data, limits)))


def decode_picture(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Like `decode`, as a Pillow picture of mode RGB, for callers who go on in Pillow."""
    return open_image(data, limits).decode()


class OpenedImage:
    """An image file whose header is read and whose pixels aren't decoded yet.

    Attributes:
        pixels: how many memory is taken for: width × height, or those of one tile of a TIFF file
            that are more; a row counts for at least 4.
    """

    def __init__(self, picture: ImageFile.ImageFile, pixels: int, png_bit_depth: int) -> None:
        """Wrap what Pillow opened."""
        self.pixels = pixels
        self._png_bit_depth = png_bit_depth
        self._format = picture.format
        self._pictures = [picture]

    def decode(self) -> Image.Image:
        """Decode it, once.

        Takes 4 to 12 bytes of memory for each pixel on the way (WebP 16), and 4 for the result.

        Returns:
            A Pillow picture of mode RGB, upright.

        Raises:
            InvalidImage: the pixels are broken, cut short or of a kind that isn't read.
            MemoryError: there is no memory for them.
            ValueError: it was decoded before.
        """
        if not self._pictures:
            raise ValueError("the image was decoded before; open it again")
        # Raised outside of `except`, since an error that somebody keeps would keep, by its cause's
        # traceback, the picture's memory.
        try:
            return _decoded(self._pictures.pop(), self._png_bit_depth)
        except InvalidImage as error:
            problem = str(error)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken file makes Pillow's plugins raise anything
            problem = f"the {self._format} image is broken or cut short: {_reason(error)}"
        raise InvalidImage(problem)


def open_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> OpenedImage:
    """Check a file's size, format, header and number of pixels, without decoding its pixels.

    Between this and `OpenedImage.decode` a caller can wait for the memory of that many pixels.

    Args:
        data: a file's bytes, in one of `FORMATS`.
        limits: what is too large.

    Raises:
        InvalidImage: says what is wrong with it.
        MemoryError: there is no memory for the header's data.
    """
    if not data:
        raise InvalidImage("the image is empty (0 bytes); expected a file's bytes")
    if len(data) > limits.max_bytes:
        raise InvalidImage(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
    elif data.startswith((b"II", b"MM")):
        check_tiff(data)
    try:
        picture = Image.open(EncodedFile(data), formats=_PLUGINS)
    except UnidentifiedImageError:
        raise InvalidImage(
            "not an image, or its header is broken, cut short, gives zero pixels or a pixel format "
            f"that isn't read: {len(data):,} bytes that start with {shorten(data[:8])}; "
            f"expected one of {', '.join(FORMATS)}"
        ) from None
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # a broken file makes Pillow's plugins raise anything
        raise InvalidImage(f"the image is broken or cut short: {_reason(error)}") from error
    _check_size(*picture.size, limits)
    # Pillow keeps a pointer to each row, which costs more than a narrow row's pixels.
    pixels = max(picture.width, _LEAST_ROW_PIXELS) * picture.height
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        try:
            pixels = max(pixels, _check_tiff(picture, data, limits))
        except (InvalidImage, MemoryError):
            raise
        except Exception as error:  # as above: any tag can have any type
            raise InvalidImage(f"the TIFF image is broken or cut short: {_reason(error)}") from error
    return OpenedImage(picture, pixels, png_bit_depth=data[24] if picture.format == "PNG" else 8)


def from_raw(raw: RawImage, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """View raw pixels as an image.

    Returns:
        uint8 [height, width, 3]; a read-only view of the bytes.

    Raises:
        InvalidImage: there aren't height × width × 3 bytes, or too many pixels.
    """
    _check_size(raw.width, raw.height, limits)
    expected = raw.height * raw.width * 3
    if len(raw.data) != expected:
        raise InvalidImage(
            f"the raw image has {len(raw.data):,} bytes; expected height × width × 3 = "
            f"{raw.height} × {raw.width} × 3 = {expected:,}"
        )
    return np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise InvalidImage(f"the image is {width} × {height} pixels; expected at least 1 × 1")
    if width * height > limits.max_pixels:
        raise InvalidImage(
            f"the image is {width} × {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are accepted"
        )


def _check_tiff(picture: TiffImagePlugin.TiffImageFile, data: bytes, limits: ImageLimits) -> int:
    """Check strips and tiles; returns the pixels of one tile, 0 without tiles."""
    tags = picture.tag_v2
    tiled = TiffImagePlugin.TILEOFFSETS in tags
    tile_pixels = 0
    if TiffImagePlugin.TILEWIDTH in tags or TiffImagePlugin.TILELENGTH in tags:
        width, height = tags.get(TiffImagePlugin.TILEWIDTH, 1), tags.get(TiffImagePlugin.TILELENGTH, 1)
        _check_tiles(picture, width, height, limits)
        tile_pixels = width * height
    offsets = tags.get(TiffImagePlugin.TILEOFFSETS if tiled else TiffImagePlugin.STRIPOFFSETS, ())
    compression = tags.get(TiffImagePlugin.COMPRESSION)
    if compression == _TIFF_JPEG:
        lengths = tags.get(TiffImagePlugin.TILEBYTECOUNTS if tiled else TiffImagePlugin.STRIPBYTECOUNTS, ())
        check_jpeg_parts(data, list(zip(offsets, lengths, strict=False)))
    elif compression == _TIFF_OLD_JPEG:  # its data may lie outside of the strips
        check_jpeg_parts(data, [(0, len(data))])
    return tile_pixels


def _check_tiles(
    picture: TiffImagePlugin.TiffImageFile, width: int, height: int, limits: ImageLimits
) -> None:
    # libtiff takes memory for a whole tile, however small the picture, and decodes whole tiles,
    # however little of them lies in the picture.
    if width * height > limits.max_pixels:
        raise InvalidImage(
            f"the TIFF image has tiles of {width} × {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are accepted"
        )
    if width < 1 or height < 1:
        raise InvalidImage(f"the TIFF image has tiles of {width} × {height} pixels; expected at least 1 × 1")
    count = -(-picture.width // width) * -(-picture.height // height)
    if count > 1 and count * width * height > 2 * limits.max_pixels:
        raise InvalidImage(
            f"the TIFF image has {count:,} tiles of {width} × {height} pixels, in all "
            f"{count * width * height:,}; at most {2 * limits.max_pixels:,} are accepted"
        )


def _decoded(picture: ImageFile.ImageFile, png_bit_depth: int) -> Image.Image:
    with picture:
        picture.load()
        if picture.format == "PNG":
            _scale_png_transparency(picture, png_bit_depth)
        turn = _transposition(picture)
    rgb = _to_rgb(picture)
    del picture  # its memory, before a turned copy is made
    return rgb if turn is None else rgb.transpose(turn)


def _scale_png_transparency(picture: Image.Image, bit_depth: int) -> None:
    """Bring the colour that means transparent to 8 bits; Pillow does so only for the pixels."""
    key = picture.info.get("transparency")
    if bit_depth in (2, 4) and isinstance(key, int):
        picture.info["transparency"] = key * 255 // (2**bit_depth - 1)
    elif bit_depth == 16 and isinstance(key, tuple):
        picture.info["transparency"] = tuple(channel >> 8 for channel in key)


def _to_rgb(picture: ImageFile.ImageFile) -> Image.Image:
    transparent = picture.mode in _ALPHA_MODES or "transparency" in picture.info
    if picture.mode.startswith("I;16"):
        convert = _narrowed(picture)
    elif transparent:
        convert = _over_white
    elif picture.mode in _EIGHT_BIT_MODES:
        # A WebP's file object holds two more pictures, the animation's canvases.
        if picture.mode == "RGB" and picture.format != "WEBP":
            return picture
        convert = _plain
    else:
        raise InvalidImage(
            f"the {picture.format} image has pixels of Pillow's mode {picture.mode!r}; "
            "expected 8 or 16 bits per channel"
        )
    # Block by block, because each step of a conversion is one more copy.
    rgb = Image.new("RGB", picture.size)
    for box in _blocks(*picture.size):
        rgb.paste(convert(picture.crop(box)), box)
    return rgb


def _blocks(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    columns = min(width, _BLOCK_PIXELS)
    rows = _BLOCK_PIXELS // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def _plain(block: Image.Image) -> Image.Image:
    return block.convert("RGB")


def _over_white(block: Image.Image) -> Image.Image:
    if block.mode == "La":  # premultiplied; Pillow has no direct way from it to RGBA
        block = block.convert("LA")
    overlay = block.convert("RGBA")
    canvas = Image.new("RGBA", overlay.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, overlay).convert("RGB")


def _narrowed(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Gray of 9 to 16 bits → RGB; Pillow's own conversion clips at 255 instead of scaling."""
    bits, white_is_zero = 16, False
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        white_is_zero = picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    key = picture.info.get("transparency")

    def narrow(block: Image.Image) -> Image.Image:
        wide = np.asarray(block).astype(np.uint16, copy=False)
        if white_is_zero:
            wide = (2**bits - 1) - wide
        gray = Image.fromarray((wide >> (bits - 8)).astype(np.uint8))
        if not isinstance(key, int):
            return gray.convert("RGB")
        gray.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
        return _over_white(gray)

    return narrow


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _transposition(picture: ImageFile.ImageFile) -> Image.Transpose | None:
    """What brings the picture upright, of a loaded picture."""
    if len(picture.info.get("exif") or b"") > _MAX_EXIF_BYTES:
        return None
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a picture is whole even when its EXIF block isn't
        return None
    return _TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
