"""Labelled pictures in three parts: to learn from, to choose a checkpoint by, to report the score on."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.image import ImageLimits, decode_picture
from training.errors import DataError

# A user's own files: far above what the service takes from strangers, still bounded.
FILE_LIMITS = ImageLimits(max_bytes=1 << 30, max_pixels=400_000_000)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Split:
    """Pictures with their classes.

    Attributes:
        sources: files, or uint8 [count, height, width, 3] RGB.
        labels: int64 [count], indices of the data set's classes.
    """

    sources: Sequence[Path] | NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int) -> Image.Image:
        """One picture, of mode RGB.

        Raises:
            service.errors.InvalidImage: the file is broken.
            OSError: the file can't be read.
        """
        source = self.sources[index]
        if isinstance(source, Path):
            return decode_picture(source.read_bytes(), FILE_LIMITS)
        return Image.fromarray(source)


@dataclass(frozen=True)
class Defaults:
    """What suits a data set where the user asks for nothing else; None leaves it to the architecture.

    Attributes:
        input_size: side of the network's input, in pixels.
        mean, std: per RGB channel, of pixels scaled to 0..1.
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        learning_rate: the highest of the schedule.
        mirror: whether a mirrored picture still shows its class.
        threads: of PyTorch, on the CPU.
    """

    input_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float | None = None
    mirror: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits over the same classes.

    Attributes:
        name: short, for the run's folder.
        classes: in the order of the labels.
        train: what the weights learn from.
        val: what the best checkpoint is chosen by.
        test: what the reported score is measured on, once, at the end.
        rule: how the splits were made, in words.
        defaults: what suits it.
        skipped: how many broken files were left out.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    rule: str
    defaults: Defaults
    skipped: int = 0


def partition(
    labels: Sequence[int], keys: Sequence[str], shares: Sequence[float], name: Callable[[int], str]
) -> list[list[int]]:
    """Divide pictures into parts of about `shares`, class by class, by a hash of each picture's key.

    The same keys always give the same parts, on every machine. Each part gets at least one picture
    of every class.

    Args:
        labels: class of each picture.
        keys: unique text of each picture, such as its path relative to the data folder.
        shares: of each part but the last, which gets what is left.
        name: class index → what to call it in an error.

    Returns:
        For each part the indices of its pictures, ascending.

    Raises:
        DataError: a class has fewer pictures than there are parts.
    """
    parts: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    for label, members in group(labels).items():
        if len(members) < len(parts):
            raise DataError(
                f"class {name(label)!r} has {len(members)} usable image{'s' * (len(members) != 1)}; at least "
                f"{len(parts)} are needed, one for each of its {len(parts)} splits, and 20 or more make sense"
            )
        ordered = sorted(
            members, key=lambda member: hashlib.sha256(keys[member].encode(errors="surrogateescape")).digest()
        )
        start = 0
        for i, share in enumerate(shares):
            # Halves are rounded up, and what later parts need is left to them.
            count = min(max(1, int(len(members) * share + 0.5)), len(members) - start - (len(shares) - i))
            parts[i] += ordered[start : start + count]
            start += count
        parts[-1] += ordered[start:]
    return [sorted(part) for part in parts]


def group(labels: Sequence[int]) -> dict[int, list[int]]:
    """The indices at which each label stands."""
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    return groups
