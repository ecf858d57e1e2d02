"""What a variant's agreement is measured on: real images, none that int8 was calibrated on, and enough."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Preprocessing
from training.parity_images import split_images, spread
from training.sources import find_pictures
from training.splits import Split
from training.transforms import shifted

# As many as tell 99.9% apart; more only takes longer.
MAX_EVALUATION_IMAGES = 1024


@dataclass(frozen=True)
class EvaluationImages:
    """What the service would hand to the graph.

    Attributes:
        pixels: uint8 [count, crop_height, crop_width, 3].
        labels: int64 [count], indices of the model's labels; None where they aren't known.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None

    def at_least(self, count: int) -> "EvaluationImages":
        """Topped up to `count` with shifted views of the same images, which keep their labels.

        A share such as 99.9% can't be told from 99% on fewer images than 1 in a thousand takes.
        """
        missing = count - len(self.pixels)
        if missing <= 0:
            return self
        draw = random.Random(0)  # noqa: S311 - which views, not secrets
        order = np.arange(missing) % len(self.pixels)
        views = np.stack([shifted(self.pixels[index], draw) for index in order])
        labels = None if self.labels is None else np.concatenate([self.labels, self.labels[order]])
        return EvaluationImages(np.concatenate([self.pixels, views]), labels)


def evaluation_split(split: Split, spec: Preprocessing) -> EvaluationImages:
    """Up to `MAX_EVALUATION_IMAGES` of a labelled split, evenly spread.

    Of pictures with several labels none is the right one, so these are left out.

    Raises:
        ExportError: one is broken or gone.
    """
    chosen = spread(len(split), MAX_EVALUATION_IMAGES)
    pixels = split_images(split, spec, MAX_EVALUATION_IMAGES)
    return EvaluationImages(pixels, None if split.labels.ndim == 2 else split.labels[chosen].astype(np.int64))


def evaluation_folder(folder: Path, spec: Preprocessing, labels: Sequence[str]) -> EvaluationImages:
    """Likewise of a folder, a table or shards: the test part, else the val part, where there are parts.

    Labels are known where every image's class is one of `labels`; a folder's classes are called by the
    folders that its images lie in.

    Raises:
        DataError: it can't be read.
        ExportError: there are no images, or one is broken.
    """
    pictures = find_pictures(folder, ("test", "val"))
    classes = {label: index for index, label in enumerate(labels)}
    indices = [-1 if label is None else classes.get(label, -1) for label in pictures.labels]
    images = evaluation_split(Split(pictures.sources, np.array(indices, np.int64)), spec)
    return images if min(indices) >= 0 else EvaluationImages(images.pixels)


def calibration_folder(folder: Path, spec: Preprocessing, most: int) -> NDArray[np.uint8]:
    """Up to `most` images of a folder, a table or shards, evenly spread: of the training part, if there is.

    Returns:
        uint8 [count, crop_height, crop_width, 3].

    Raises:
        DataError: it can't be read.
        ExportError: there are no images, or one is broken.
    """
    sources = find_pictures(folder, ("train",)).sources
    return split_images(Split(sources, np.zeros(len(sources), np.int64)), spec, most)
