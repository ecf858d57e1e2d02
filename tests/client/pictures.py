"""Pictures of one colour, whose class and embedding under the colors model are known."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.packages import LABELS, SIZE, colors_embedding

BROKEN = b"\xff\xd8\xff\xe0 this is no JPEG"


def pixels(color: tuple[int, int, int], size: int = SIZE) -> NDArray[np.uint8]:
    """uint8 [size, size, 3] of one colour."""
    return np.full((size, size, 3), color, np.uint8)


def of_class(index: int, strength: int = 200, size: int = SIZE) -> NDArray[np.uint8]:
    """A picture of class `index` modulo the classes."""
    color = [10, 10, 10]
    color[index % len(LABELS)] = strength
    return pixels((color[0], color[1], color[2]), size)


def file_bytes(image: NDArray[np.uint8], image_format: str = "PNG") -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


def expected_embedding(image: NDArray[np.uint8]) -> Any:
    """What the colors model makes of a picture of one colour, of any size."""
    return colors_embedding(np.full((SIZE, SIZE, 3), image[0, 0], np.uint8))
