"""Photographs of a phone's size, made of small ones: the folder that comes with the project has none."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NOISE_SIDE = 1024
# Of 255. Makes 12 megapixels some 3 MB at quality 90, as phones' files are: without noise, an enlarged
# picture is smooth, so its file small and cheap to decode.
_BRIGHTNESS_NOISE, _COLOR_NOISE = 4.0, 2.8


def photo_files(folder: Path) -> list[Path]:
    """The JPEG files of a folder.

    Raises:
        SystemExit: there are none.
    """
    photos = sorted(file for file in folder.glob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        raise SystemExit(f"not measured: no JPEG files in {folder}; name a folder with --photos")
    return photos


def enlarged(photo: Path, megapixels: float, view: int = 0) -> bytes:
    """A photograph at another size, with a sensor's noise.

    Args:
        photo: a JPEG file.
        megapixels: of the result.
        view: 0 takes the whole photograph, 1 to 4 one corner of it, 85% of each side.

    Returns:
        A baseline JPEG file of quality 90 with halved colour (4:2:0).
    """
    with Image.open(photo) as opened:
        whole = opened.convert("RGB")
    width, height = whole.size
    box = (0.0, 0.0, float(width), float(height))
    if view:
        left, top = 0.15 * width * (view % 2), 0.15 * height * (view > 2)
        box = (left, top, left + 0.85 * width, top + 0.85 * height)
    grow = (megapixels * 1e6 / (width * height)) ** 0.5
    size = round(width * grow), round(height * grow)
    pixels = _noisy(np.asarray(whole.resize(size, Image.Resampling.BICUBIC, box=box)))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling="4:2:0")
    return file.getvalue()


def _noisy(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise, result = _noise(), np.empty_like(pixels)
    for top in range(0, pixels.shape[0], _NOISE_SIDE):
        for left in range(0, pixels.shape[1], _NOISE_SIDE):
            tile = slice(top, top + _NOISE_SIDE), slice(left, left + _NOISE_SIDE)
            height, width, _ = pixels[tile].shape
            np.clip(pixels[tile] + noise[:height, :width], 0, 255, out=result[tile], casting="unsafe")
    return result


@cache
def _noise() -> NDArray[np.int16]:
    draw = np.random.default_rng(0)
    side = (_NOISE_SIDE, _NOISE_SIDE)
    brightness = draw.standard_normal((*side, 1)) * _BRIGHTNESS_NOISE
    return (brightness + draw.standard_normal((*side, 3)) * _COLOR_NOISE).round().astype(np.int16)
