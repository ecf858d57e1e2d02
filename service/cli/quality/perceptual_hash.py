"""A picture's perceptual hash: 64 bits that change little when it is resized, compressed or brightened.

The DCT hash of Zauner 2010 ("Implementation and Benchmarking of Perceptual Image Hash Functions", section
3.2.1), bit for bit as `phash` of the ImageHash library computes it (a test has that one's hashes). SciPy and
PyWavelets, which the library brings, are a lot for two matrix products.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.cli.bulk.entry import TarMember, content_of
from service.image import decode_picture

BITS = 64
MOST_BITS = 24
"""Hashes that differ in more say that pictures are different: chance makes it 32."""
_SIDE, _LOW = 32, 8
# A JPEG is decoded at an eighth of its size and up, as long as this is left of its shorter side.
_DECODED_SIDE = 4 * _SIDE
# The transform's own rounding, which would fill a plain picture's hash with noise.
_DECIMALS = 6
_FREQUENCIES = np.arange(_LOW)[:, None]
# Type II, not normalised: only signs against the median count.
_DCT = 2 * np.cos(np.pi * _FREQUENCIES * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE))


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at a file tells.

    Attributes:
        bits: its hash, 64 bits.
        width, height: in pixels, upright.
        size_bytes: of the file.
    """

    bits: int
    width: int
    height: int
    size_bytes: int


def perceptual_hash(picture: Image.Image) -> int:
    """The 64 bits of a picture of any size and mode, the upper left coefficient first."""
    grey = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    coefficients = np.round(_DCT @ np.asarray(grey, np.float64) @ _DCT.T, _DECIMALS)
    above = (coefficients > np.median(coefficients)).ravel()
    return int.from_bytes(np.packbits(above).tobytes(), "big")


def look(place: Path | TarMember) -> Seen:
    """Read and hash a picture's file.

    Raises:
        Unusable: it can't be read.
        InvalidImage: it can't be decoded.
    """
    content = content_of(place)
    picture = decode_picture(content, least_short_side=_DECODED_SIDE)
    return Seen(perceptual_hash(picture.image), picture.width, picture.height, len(content))


def signs(hashes: list[int]) -> NDArray[np.float32]:
    """float32 [hashes, 64], +1 and −1: a product of two is 64 less twice the bits in which they differ."""
    packed = np.array(hashes, ">u8").view(np.uint8).reshape(-1, BITS // 8)
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
