"""Real pictures to compare ONNX Runtime with PyTorch on, as the service would hand them to the graph."""

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidImage
from service.preprocess import Preprocessing, preprocess
from training.errors import ExportError
from training.sources import find_pictures
from training.splits import Split

# Enough to meet every class of a usual data set; more only takes longer.
MAX_IMAGES = 128
_PHOTO_CROPS = 24


def sample_photos(spec: Preprocessing) -> NDArray[np.uint8]:
    """Always the same crops of the two photographs that scikit-learn brings along.

    Returns:
        uint8 [24, crop_height, crop_width, 3].
    """
    # Needed for networks without a data set only, and slow to import.
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    draw = random.Random(0)  # noqa: S311 - which crops, not secrets
    crops = []
    for index in range(_PHOTO_CROPS):
        photo = photos[index % len(photos)]
        side = draw.randint(min(photo.size) // 4, min(photo.size))
        left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
        crops.append(preprocess(photo.crop((left, top, left + side, top + side)), spec))
    return np.stack(crops)


def folder_images(folder: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    """Up to `MAX_IMAGES` of the images that a folder, a table or shards hold, as the service would see them.

    They are evenly spread.

    Returns:
        uint8 [count, crop_height, crop_width, 3].

    Raises:
        DataError: it can't be read.
        ExportError: there are none, or one is broken.
    """
    sources = find_pictures(folder).sources
    return split_images(Split(sources, np.zeros(len(sources), np.int64)), spec)


def split_images(split: Split, spec: Preprocessing, most: int = MAX_IMAGES) -> NDArray[np.uint8]:
    """Likewise of a split, up to `most`.

    Raises:
        ExportError: one is broken or gone.
    """
    return np.stack([_pixels(split, index, spec) for index in spread(len(split), most)])


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices below `count`, evenly spread, ascending."""
    indices: list[int] = np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
    return indices


def _pixels(split: Split, index: int, spec: Preprocessing) -> NDArray[np.uint8]:
    try:
        return preprocess(split.picture(index, spec.least_short_side), spec)
    except (InvalidImage, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ExportError(
            f"{split.sources[index]} can't be used: {reason}; mend it, leave it out, or name other images"
        ) from error
