"""Random crops of a few photographs: many different pictures where there are too few to measure shares on.

As in training (Szegedy et al. 2014, arXiv:1409.4842, section 6), but of at least half of the picture, so that
what it shows is mostly still there: a part of it, an aspect ratio of 3:4 to 4:3, mirrored or not.
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.errors import InvalidImage
from service.preprocess import Picture, Preprocessing, preprocess
from training.content import content_digest
from training.errors import ExportError, SettingError
from training.evaluation import EvaluationImages
from training.parity_images import spread
from training.sources import Pictures, find_pictures
from training.splits import Split

# Of all pictures together; each takes the network's input in bytes.
MAX_CROPS = 4096
_LEAST_SHARE = 0.5
_LARGEST_RATIO = 4 / 3


def evaluation_crops(
    data: Path, spec: Preprocessing, labels: Sequence[str], per_picture: int
) -> EvaluationImages:
    """Crops to measure on, always the same: of the test part, else the val part, where there are parts.

    Args:
        data: a folder, a table or shards.
        spec: what the service does to an image; each crop goes through it.
        labels: the model's; those of the crops are known where every picture's is one of them.
        per_picture: crops of each.

    Raises:
        SettingError: more than `MAX_CROPS` altogether.
        DataError: the data can't be read.
        ExportError: there are no pictures, or one is broken.
    """
    pictures = find_pictures(data, ("test", "val"))
    count = len(pictures.sources) * per_picture
    if count > MAX_CROPS:
        raise SettingError(
            f"--crops {per_picture} of each of {len(pictures.sources)} pictures are {count:,}; expected at "
            f"most {MAX_CROPS:,} altogether: so many pictures resolve a share without crops"
        )
    pixels = np.stack(list(_crops(pictures, range(len(pictures.sources)), per_picture, spec, "measure")))
    classes = {label: index for index, label in enumerate(labels)}
    known = [-1 if label is None else classes.get(label, -1) for label in pictures.labels]
    return EvaluationImages(
        pixels,
        None if min(known) < 0 else np.repeat(np.array(known, np.int64), per_picture),
        f"{per_picture} crop{'s' * (per_picture != 1)} of each of {len(pictures.sources):,} images of {data}",
    )


def calibration_crops(data: Path, spec: Preprocessing, most: int) -> NDArray[np.uint8]:
    """Other crops, to calibrate int8 on: of the training part, if there is; about `most`, evenly spread.

    Returns:
        uint8 [count, crop_height, crop_width, 3].

    Raises:
        DataError, ExportError: as `evaluation_crops`.
    """
    pictures = find_pictures(data, ("train",))
    chosen = spread(len(pictures.sources), most)
    return np.stack(list(_crops(pictures, chosen, math.ceil(most / len(chosen)), spec, "calibrate")))


def _crops(
    pictures: Pictures, chosen: Sequence[int], per_picture: int, spec: Preprocessing, purpose: str
) -> Iterator[NDArray[np.uint8]]:
    split = Split(pictures.sources, np.zeros(len(pictures.sources), np.int64))
    for index in chosen:
        picture, digest = _picture(split, index)
        # Each picture has draws of its own, wherever it lies and whatever lies beside it.
        draw = random.Random(f"{purpose} {digest}")  # noqa: S311 - which crops, not secrets
        for _ in range(per_picture):
            yield preprocess(_crop(picture, draw), spec)


def _picture(split: Split, index: int) -> tuple[Picture, str]:
    """A picture, and the digest of its content."""
    try:
        return split.picture(index), content_digest(split, index).hex()
    except (InvalidImage, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ExportError(
            f"{split.sources[index]} can't be used: {reason}; mend it, leave it out, or name other images"
        ) from error


def _crop(picture: Picture, draw: random.Random) -> Image.Image:
    area = draw.uniform(_LEAST_SHARE, 1) * picture.width * picture.height
    ratio = math.exp(draw.uniform(-math.log(_LARGEST_RATIO), math.log(_LARGEST_RATIO)))
    width = min(picture.width, max(1, round(math.sqrt(area * ratio))))
    height = min(picture.height, max(1, round(math.sqrt(area / ratio))))
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    crop = picture.image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(crop) if draw.random() < 0.5 else crop
