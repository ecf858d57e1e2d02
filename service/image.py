"""Encoded bytes or raw pixels → RGB uint8 [height, width, 3], with every limit checked before decoding."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (  # Pillow opens only the formats whose plugins are imported
    BmpImagePlugin,  # noqa: F401 - registers itself, as do the next ones
    ExifTags,
    GifImagePlugin,  # noqa: F401 - as above
    Image,
    JpegImagePlugin,  # noqa: F401 - as above; opens the MPO files of many phones too
    PngImagePlugin,  # noqa: F401 - as above
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - as above
)

from service.errors import InvalidImage

# Ours is explicit, applies to every format and is checked before decoding; Pillow's would warn or
# raise first, with advice about denial of service that the caller can't act on.
Image.MAX_IMAGE_PIXELS = None
# About oddities of a caller's file that Pillow copes with; what it doesn't cope with is raised.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_EIGHT_BIT_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "P"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}


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
    if not data:
        raise InvalidImage("the image is empty (0 bytes); expected a file's bytes")
    if len(data) > limits.max_bytes:
        raise InvalidImage(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise InvalidImage(
            "not an image, or its header is broken, cut short, gives zero pixels or a pixel format "
            f"that isn't read: {len(data):,} bytes that start with {data[:8]!r}; "
            f"expected one of {', '.join(FORMATS)}"
        ) from None
    except Exception as error:  # a broken file makes Pillow's plugins raise anything
        raise InvalidImage(f"the image is broken or cut short: {_reason(error)}") from error
    with picture:
        _check_size(*picture.size, limits)
        try:
            if isinstance(picture, TiffImagePlugin.TiffImageFile):
                _check_tiles(picture, limits)
            picture.load()
            if picture.format == "PNG":
                _scale_png_transparency(picture, bit_depth=data[24])
            return _oriented(_to_rgb(picture), picture)
        except InvalidImage:
            raise
        except Exception as error:  # as above
            raise InvalidImage(
                f"the {picture.format} image is broken or cut short: {_reason(error)}"
            ) from error


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


def _check_tiles(picture: TiffImagePlugin.TiffImageFile, limits: ImageLimits) -> None:
    # libtiff takes memory for a whole tile, however small the picture.
    tags = picture.tag_v2
    width, height = tags.get(TiffImagePlugin.TILEWIDTH, 1), tags.get(TiffImagePlugin.TILELENGTH, 1)
    if width * height > limits.max_pixels:
        raise InvalidImage(
            f"the TIFF image has tiles of {width} × {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are accepted"
        )


def _scale_png_transparency(picture: Image.Image, bit_depth: int) -> None:
    """Bring the colour that means transparent to 8 bits; Pillow does so only for the pixels."""
    key = picture.info.get("transparency")
    if bit_depth in (2, 4) and isinstance(key, int):
        picture.info["transparency"] = key * 255 // (2**bit_depth - 1)
    elif bit_depth == 16 and isinstance(key, tuple):
        picture.info["transparency"] = tuple(channel >> 8 for channel in key)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _narrowed(picture)
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        return _over_white(picture)
    if picture.mode not in _EIGHT_BIT_MODES:
        raise InvalidImage(
            f"the {picture.format} image has pixels of Pillow's mode {picture.mode!r}; "
            "expected 8 or 16 bits per channel"
        )
    return picture.convert("RGB")


def _narrowed(picture: Image.Image) -> Image.Image:
    """Gray of 9 to 16 bits → RGB; Pillow's own conversion clips at 255 instead of scaling."""
    wide = np.asarray(picture).astype(np.uint16, copy=False)
    bits = 16
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        if picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
            wide = (2**bits - 1) - wide
    narrow = Image.fromarray((wide >> (bits - 8)).astype(np.uint8))
    key = picture.info.get("transparency")
    if isinstance(key, int):
        narrow.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
        return _over_white(narrow)
    return narrow.convert("RGB")


def _over_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":  # premultiplied; Pillow has no direct way from it to RGBA
        picture = picture.convert("LA")
    overlay = picture.convert("RGBA")
    canvas = Image.new("RGBA", overlay.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, overlay).convert("RGB")


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _oriented(rgb: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - a picture is whole even when its EXIF block isn't
        return rgb
    transposition = _TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None
    return rgb if transposition is None else rgb.transpose(transposition)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
