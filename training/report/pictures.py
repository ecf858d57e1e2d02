"""Pictures inside a page: small, and as data URIs, so that the page needs no other file."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# On the page, in CSS pixels; photographs have twice as many for fine displays.
SIDE = 112


def picture_uri(pixels: NDArray[np.uint8]) -> str:
    """uint8 [height, width, 3] → a data URI, about `SIDE` pixels large or twice that."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    file = io.BytesIO()
    if longest <= SIDE:
        # Whole multiples keep the pixels of a small picture square.
        factor = max(1, SIDE // longest)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        picture.save(file, "PNG", optimize=True)
        return _uri("image/png", file.getvalue())
    if longest > 2 * SIDE:
        picture.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    picture.save(file, "JPEG", quality=85)
    return _uri("image/jpeg", file.getvalue())


def svg_uri(svg: bytes) -> str:
    """An SVG document → a data URI."""
    return _uri("image/svg+xml", svg)


def overlaid(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture in grey under a heat map.

    Args:
        pixels: uint8 [height, width, 3].
        heat: float32 [height, width], 0 to 1.
    """
    from matplotlib import colormaps

    colours = colormaps["turbo"](heat)[..., :3] * 255
    grey = pixels.mean(axis=2, keepdims=True)
    # Where nothing speaks for the class the picture is seen through.
    opacity = 0.15 + 0.45 * heat[..., None]
    mixed = np.clip(grey * (1 - opacity) + colours * opacity, 0, 255)
    return np.asarray(mixed, np.uint8)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
