"""What happens to a picture before the network sees it: in training, and everywhere else.

Both give uint8 pixels; normalisation is the network's first layer (`normalization.py`), so that the
exported graph carries it.
"""

import math
import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.preprocess import INTERPOLATIONS, Picture, Preprocessing, preprocess

CROPS = ("resized", "padded", "none")
_AREA_SHARE = (0.08, 1.0)
_ASPECT_RATIO = (3 / 4, 4 / 3)


class Transform(Protocol):
    """Picture, source of randomness → uint8 [height, width, 3]."""

    @property
    def least_short_side(self) -> int | None:
        """The fewest pixels that a JPEG's shorter side may be decoded at; None where only all will do."""

    def __call__(self, picture: Picture, draw: random.Random) -> NDArray[np.uint8]:
        """The network's input."""


@dataclass(frozen=True)
class TrainTransform:
    """Another view of the picture each time.

    Attributes:
        spec: the input's size and interpolation.
        crop: 'resized' takes a part of random area and shape (Szegedy et al. 2014, arXiv:1409.4842,
            section 6); 'padded' shifts by up to an eighth of the side over black (He et al. 2015,
            section 4.2), for small pictures; 'none' is the evaluation's view.
        mirror: whether half of the views are mirrored.
    """

    spec: Preprocessing
    crop: str
    mirror: bool

    @property
    def least_short_side(self) -> int | None:
        """The evaluation's; but a resized crop may enlarge a small part, so it wants all pixels."""
        return None if self.crop == "resized" else self.spec.least_short_side

    def __call__(self, picture: Picture, draw: random.Random) -> NDArray[np.uint8]:
        """Picture → uint8 [crop_height, crop_width, 3]; for a resized crop a whole one."""
        if self.crop == "resized":
            pixels = _resized_crop(picture.image, self.spec, draw)
        else:
            pixels = preprocess(picture, self.spec)
        if self.crop == "padded":
            pixels = shifted(pixels, draw)
        if self.mirror and draw.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class EvalTransform:
    """The service's own preprocessing, pixel for pixel.

    Attributes:
        spec: sizes and interpolation.
    """

    spec: Preprocessing

    @property
    def least_short_side(self) -> int | None:
        """The service's."""
        return self.spec.least_short_side

    def __call__(self, picture: Picture, draw: random.Random) -> NDArray[np.uint8]:  # noqa: ARG002 - a `Transform`
        """Picture → uint8 [crop_height, crop_width, 3]."""
        return preprocess(picture, self.spec)


def _resized_crop(picture: Image.Image, spec: Preprocessing, draw: random.Random) -> NDArray[np.uint8]:
    size = (spec.crop_width, spec.crop_height)
    box = _random_box(*picture.size, spec.crop_width / spec.crop_height, draw)
    return np.asarray(picture.resize(size, INTERPOLATIONS[spec.interpolation], box=box))


def _random_box(
    width: int, height: int, input_ratio: float, draw: random.Random
) -> tuple[float, float, float, float]:
    """A part of the picture, (left, top, right, bottom); or its centre if ten draws don't fit."""
    low, high = (math.log(ratio) for ratio in _ASPECT_RATIO)
    for _ in range(10):
        area = width * height * draw.uniform(*_AREA_SHARE)
        ratio = input_ratio * math.exp(draw.uniform(low, high))
        box_width, box_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if box_width <= width and box_height <= height:
            left, top = draw.uniform(0, width - box_width), draw.uniform(0, height - box_height)
            # Rounding may carry the far edge a hair over the picture's, which Pillow refuses.
            return left, top, min(left + box_width, width), min(top + box_height, height)
    box_width, box_height = min(width, height * input_ratio), min(height, width / input_ratio)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def shifted(pixels: NDArray[np.uint8], draw: random.Random) -> NDArray[np.uint8]:
    """Moved by up to an eighth of the side over black, uint8 [height, width, 3]."""
    height, width, _ = pixels.shape
    down, across = max(1, height // 8), max(1, width // 8)
    padded = np.pad(pixels, ((down, down), (across, across), (0, 0)))
    top, left = draw.randrange(2 * down + 1), draw.randrange(2 * across + 1)
    return padded[top : top + height, left : left + width]
