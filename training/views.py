"""Ways to look at a picture whose features are kept: the service's own, mirrored, and cut at random."""

import hashlib
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Picture, Preprocessing, preprocess
from training.transforms import TrainTransform

# Below this side a resized crop would throw away most of what little there is.
_SMALL_INPUT = 64


@dataclass(frozen=True)
class View:
    """The view of that number: the same of the same picture each time, on every machine.

    Attributes:
        spec: the network's preprocessing.
        number: 0 is what the service sees, 1 that mirrored; from 2 on a random part, mirrored or not, drawn
            from the picture's own pixels and the number.
    """

    spec: Preprocessing
    number: int

    @property
    def least_short_side(self) -> int | None:
        """As of a `transforms.Transform`."""
        return self.spec.least_short_side if self.number < 2 else self._cut.least_short_side

    @property
    def described(self) -> str:
        """What a cache keeps apart."""
        return (
            ("evaluation", "mirrored")[self.number] if self.number < 2 else f"{self._cut.crop} {self.number}"
        )

    def __call__(self, picture: Picture, draw: random.Random) -> NDArray[np.uint8]:  # noqa: ARG002 - a `Transform`
        """Picture → uint8 [crop_height, crop_width, 3]."""
        if self.number < 2:
            pixels = preprocess(picture, self.spec)
            return np.ascontiguousarray(pixels[:, ::-1]) if self.number else pixels
        seed = hashlib.sha256(picture.image.tobytes()).hexdigest()
        return self._cut(picture, random.Random(f"{seed}/{self.number}"))  # noqa: S311 - which part, not secrets

    @property
    def _cut(self) -> TrainTransform:
        small = self.spec.crop_height <= _SMALL_INPUT
        return TrainTransform(self.spec, "padded" if small else "resized", mirror=True)
