"""What a variant's agreement is measured on: real images, none that int8 was calibrated on, and enough."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Preprocessing
from training.errors import ExportError
from training.image_files import find_images
from training.layout import ALL, parts_of
from training.parity_images import split_images, spread
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
    """Likewise of a folder: its test part, else its val part, where it has parts.

    Labels are known where every image lies in a folder that is called like one of `labels`.

    Raises:
        DataError: a folder can't be read.
        ExportError: there are no images, or one is broken.
    """
    parts = parts_of(folder)
    root = parts.get("test", parts.get("val", folder))
    split, known = _labelled(root, labels)
    images = evaluation_split(split, spec)
    return images if known else EvaluationImages(images.pixels)


def calibration_folder(folder: Path, spec: Preprocessing, most: int) -> NDArray[np.uint8]:
    """Up to `most` images of a folder, evenly spread: of its training part, where it has parts.

    Returns:
        uint8 [count, crop_height, crop_width, 3].

    Raises:
        DataError: a folder can't be read.
        ExportError: there are no images, or one is broken.
    """
    parts = parts_of(folder)
    split, _ = _labelled(parts.get("train", parts.get(ALL, folder)), ())
    return split_images(split, spec, most)


def _labelled(root: Path, labels: Sequence[str]) -> tuple[Split, bool]:
    paths = find_images(root).paths
    if not paths:
        raise ExportError(f"no images in {root}")
    classes = {label: index for index, label in enumerate(labels)}
    indices = [classes.get(path.relative_to(root).parts[0], -1) for path in paths]
    return Split(paths, np.array(indices, np.int64)), min(indices) >= 0
