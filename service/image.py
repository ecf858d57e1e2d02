"""Encoded bytes or raw pixels → RGB uint8 [height, width, 3], with every limit checked before decoding."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (  # Pillow opens only the formats whose plugins are imported
    BmpImagePlugin,  # noqa: F401 - registers itself, as do the next ones
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,  # opens the MPO files of many phones too
    PngImagePlugin,  # noqa: F401 - as above
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - as above
)

from service.encoded import EncodedFile, check_jpeg, check_jpeg_parts, check_tiff
from service.errors import InvalidImage, shorten
from service.preprocess import Picture

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


class RawImage(NamedTuple):
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
    return np.ascontiguousarray(np.asarray(decode_picture(data, limits).image))


def decode_picture(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, least_short_side: int | None = None
) -> Picture:
    """Like `decode`, for `preprocess`; `least_short_side` as in `open_image`."""
    return open_image(data, limits, least_short_side).decode()


class OpenedImage:
    """An image file whose header is read and whose pixels aren't decoded yet.

    Attributes:
        pixels: how many memory is taken for: width × height as they will be decoded, or those of one
            tile of a TIFF file that are more; a row counts for at least 4. All of the file's where the
            decoder keeps them, as for progressive JPEGs.
    """

    def __init__(
        self, picture: ImageFile.ImageFile, pixels: int, extent: "_Extent", png_bit_depth: int
    ) -> None:
        """Wrap what Pillow opened."""
        self.pixels = pixels
        self._extent = extent
        self._png_bit_depth = png_bit_depth
        self._format = picture.format
        self._pictures = [picture]

    def decode(self) -> Picture:
        """Decode it, once.

        Takes 4 to 12 bytes of memory for each pixel on the way (WebP 16), and 4 for the result.

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
            return _decoded(self._pictures.pop(), self._extent, self._png_bit_depth)
        except InvalidImage as error:
            problem = str(error)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken file makes Pillow's plugins raise anything
            problem = f"the {self._format} image is broken or cut short: {_reason(error)}"
        raise InvalidImage(problem)


@dataclass(frozen=True)
class _Extent:
    """A picture's size in the file, and the part of a decoded pixel's side that one of its pixels is."""

    width: int
    height: int
    scale: int


def open_image(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, least_short_side: int | None = None
) -> OpenedImage:
    """Check a file's size, format, header and number of pixels, without decoding its pixels.

    Between this and `OpenedImage.decode` a caller can wait for the memory of that many pixels.

    Args:
        data: a file's bytes, in one of `FORMATS`.
        limits: what is too large.
        least_short_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, whichever
            is smallest, while its shorter side keeps this many pixels; None decodes it whole.

    Raises:
        InvalidImage: says what is wrong with it.
        MemoryError: there is no memory for the header's data.
        ValueError: `least_short_side` is below 1.
    """
    if least_short_side is not None and least_short_side < 1:
        raise ValueError(f"least_short_side is {least_short_side}; expected at least 1")
    if not data:
        raise InvalidImage("the image is empty (0 bytes); expected a file's bytes")
    if len(data) > limits.max_bytes:
        raise InvalidImage(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    row_by_row = False
    if data.startswith(b"\xff\xd8"):
        row_by_row = check_jpeg(data)
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
    width, height = picture.size
    _check_size(width, height, limits)
    scale = 1
    if least_short_side is not None:
        scale = _scale_down(picture, least_short_side)
    # Pillow keeps a pointer to each row, which costs more than a narrow row's pixels.
    pixels = max(width, _LEAST_ROW_PIXELS) * height
    if row_by_row:
        pixels = max(picture.width, _LEAST_ROW_PIXELS) * picture.height
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        try:
            pixels = max(pixels, _check_tiff(picture, data, limits))
        except (InvalidImage, MemoryError):
            raise
        except Exception as error:  # as above: any tag can have any type
            raise InvalidImage(f"the TIFF image is broken or cut short: {_reason(error)}") from error
    bit_depth = data[24] if picture.format == "PNG" else 8
    return OpenedImage(picture, pixels, _Extent(width, height, scale), bit_depth)


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
    return np.ndarray((raw.height, raw.width, 3), np.uint8, raw.data)


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


def _scale_down(picture: ImageFile.ImageFile, least_short_side: int) -> int:
    """Have a JPEG decoded at a part of its size (libjpeg's DCT scaling); returns 1 over the part."""
    width, height = picture.size
    if not isinstance(picture, JpegImagePlugin.JpegImageFile) or min(width, height) < 2 * least_short_side:
        return 1
    drafted = picture.draft(None, (least_short_side, least_short_side))
    return 1 if drafted is None else round(width / drafted[1][2])


def _decoded(picture: ImageFile.ImageFile, extent: _Extent, png_bit_depth: int) -> Picture:
    with picture:
        picture.load()
        if picture.format == "PNG":
            _scale_png_transparency(picture, png_bit_depth)
        turn = _turn(picture)
    rgb = _to_rgb(picture)
    del picture  # its memory, before a turned copy is made
    upright = rgb if turn is None else rgb.transpose(turn)
    if extent.scale == 1:
        return Picture.whole(upright)
    return _placed(upright, extent, turn)


def _placed(upright: Image.Image, extent: _Extent, turn: Image.Transpose | None) -> Picture:
    """Say where in whole decoded pixels the file's picture lies: stored, it begins at the top left."""
    width, height = extent.width, extent.height
    if turn in _ON_THE_SIDE:
        width, height = height, width
    part_width, part_height = width / extent.scale, height / extent.scale
    left = upright.width - part_width if turn in _FROM_THE_RIGHT else 0.0
    top = upright.height - part_height if turn in _FROM_THE_BOTTOM else 0.0
    return Picture(upright, width, height, (left, top, left + part_width, top + part_height))


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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_ON_THE_SIDE = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}
_FROM_THE_RIGHT = {_TURNS[2], _TURNS[3], _TURNS[6], _TURNS[7]}
_FROM_THE_BOTTOM = {_TURNS[3], _TURNS[4], _TURNS[7], _TURNS[8]}


def _turn(picture: ImageFile.ImageFile) -> Image.Transpose | None:
    """What brings the picture upright, of a loaded picture."""
    if len(picture.info.get("exif") or b"") > _MAX_EXIF_BYTES:
        return None
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a picture is whole even when its EXIF block isn't
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
