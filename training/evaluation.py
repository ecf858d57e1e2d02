"""What a variant's agreement is measured on: real images, none that int8 was calibrated on, and enough."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        source: how many of what, in words; empty for just as many images.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    source: str = ""

    def at_least(self, count: int) -> "EvaluationImages":
        """Topped up to `count` with shifted views of the same images, which keep their labels.

        How they are shifted depends on what an image shows, not on its place among the others.

        A share such as 99.9% can't be told from 99% on fewer images than 1 in a thousand takes.
        """
        missing = count - len(self.pixels)
        if missing <= 0:
            return self
        own = len(self.pixels)
        order = np.arange(missing) % own
        views = np.stack([_view(self.pixels[index], number // own) for number, index in enumerate(order)])
        labels = None if self.labels is None else np.concatenate([self.labels, self.labels[order]])
        return EvaluationImages(np.concatenate([self.pixels, views]), labels, self.source)

    def described(self, count: int) -> str:
        """What was measured on, in words.

        Args:
            count: images after `at_least`.
        """
        own = len(self.pixels)
        text = self.source or f"{own:,} images"
        if count <= own:
            return text
        return (
            f"{text}, and {count - own:,} shifted views of these: {own:,} alone resolve {100 / own:.3g} "
            f"points, {count:,} resolve {100 / count:.3g}"
        )


def evaluation_split(split: Split, spec: Preprocessing, source: str) -> EvaluationImages:
    """Up to `MAX_EVALUATION_IMAGES` of a labelled split, evenly spread.

    Of pictures with several labels none is the right one, so these are left out.

    Args:
        split: the pictures.
        spec: what the service does to an image.
        source: what to call the split.

    Raises:
        ExportError: one is broken or gone.
    """
    chosen = spread(len(split), MAX_EVALUATION_IMAGES)
    pixels = split_images(split, spec, MAX_EVALUATION_IMAGES)
    labels = None if split.labels.ndim == 2 else split.labels[chosen].astype(np.int64)
    some = "" if len(chosen) == len(split) else f"of the {len(split):,} "
    return EvaluationImages(pixels, labels, f"{len(chosen):,} {some}images of {source}")


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
    images = evaluation_split(Split(pictures.sources, np.array(indices, np.int64)), spec, str(folder))
    return images if min(indices) >= 0 else replace(images, labels=None)


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


def _view(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """The number-th shifted view of an image."""
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return shifted(pixels, random.Random(f"{digest} {number}"))  # noqa: S311 - which view, not secrets
