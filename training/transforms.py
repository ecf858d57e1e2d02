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
        """The evaluation's; but a resized crop may enlarge a small part, so it asks `least_short_side_of`."""
        return None if self.crop == "resized" else self.spec.least_short_side

    @property
    def sized(self) -> bool:
        """Whether a JPEG's size and the draw decide what it may be decoded at."""
        return self.crop == "resized" and self.spec.jpeg_scaled_decode

    def least_short_side_of(self, width: int, height: int, draw: random.Random) -> int:
        """The fewest pixels that the shorter side may be decoded at for the view that is drawn next.

        The part that is cut out then has as many times the input's pixels as the evaluation's picture.

        Args:
            width, height: of the whole picture.
            draw: in the state that `__call__` will get it in.
        """
        left, top, right, bottom = _random_box(
            width, height, self.spec.crop_width / self.spec.crop_height, draw
        )
        enlarged = max(self.spec.crop_width / (right - left), self.spec.crop_height / (bottom - top))
        margin = (self.spec.least_short_side or 0) / self.spec.resize_short_side
        return math.ceil(margin * enlarged * min(width, height))

    def __call__(self, picture: Picture, draw: random.Random) -> NDArray[np.uint8]:
        """Picture → uint8 [crop_height, crop_width, 3]."""
        if self.crop == "resized":
            pixels = _resized_crop(picture, self.spec, draw)
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


def _resized_crop(picture: Picture, spec: Preprocessing, draw: random.Random) -> NDArray[np.uint8]:
    ratio = spec.crop_width / spec.crop_height
    left, top, right, bottom = _random_box(picture.width, picture.height, ratio, draw)
    # The picture may be decoded at a part of its size.
    first_x, first_y, last_x, last_y = picture.box
    across, down = (last_x - first_x) / picture.width, (last_y - first_y) / picture.height
    box = (
        first_x + left * across,
        first_y + top * down,
        min(first_x + right * across, last_x),
        min(first_y + bottom * down, last_y),
    )
    size = (spec.crop_width, spec.crop_height)
    return np.asarray(picture.image.resize(size, INTERPOLATIONS[spec.interpolation], box=box))


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
    # np.pad takes a third of a small picture's whole preparation.
    padded = np.zeros((height + 2 * down, width + 2 * across, pixels.shape[2]), np.uint8)
    padded[down : down + height, across : across + width] = pixels
    top, left = draw.randrange(2 * down + 1), draw.randrange(2 * across + 1)
    return padded[top : top + height, left : left + width]
