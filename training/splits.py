"""Labelled pictures in three parts: to learn from, to choose a checkpoint by, to report the score on."""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.image import ImageLimits, decode_picture
from service.preprocess import Picture
from training.errors import DataError
from training.jpeg_size import jpeg_size
from training.source import Source, source_bytes

LeastOf = Callable[[int, int], int]
"""Width, height → the fewest pixels that the shorter side may be decoded at."""
K = TypeVar("K", bound=Hashable)

# A user's own files: far above what the service takes from strangers, still bounded.
FILE_LIMITS = ImageLimits(max_bytes=1 << 30, max_pixels=400_000_000)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SINGLE_LABEL, MULTI_LABEL = "single_label", "multi_label"


@dataclass(frozen=True)
class Split:
    """Pictures with their classes.

    Attributes:
        sources: files and members of archives, or uint8 [count, height, width, 3] RGB.
        labels: int64 [count], indices of the data set's classes; for several labels a picture uint8
            [count, classes], 1 where the picture has the class.
    """

    sources: Sequence[Source] | NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int, least_short_side: int | LeastOf | None = None) -> Picture:
        """One picture; `least_short_side` as in `service.image.open_image`, for files.

        A function is asked for it, of JPEGs, with their size.

        Raises:
            service.errors.InvalidImage: the file is broken.
            OSError: the file can't be read.
        """
        source = self.sources[index]
        if isinstance(source, np.ndarray):
            return Picture.whole(Image.fromarray(source))
        content = source_bytes(source)
        if callable(least_short_side):
            size = jpeg_size(content)
            least_short_side = None if size is None else least_short_side(*size)
        return decode_picture(content, FILE_LIMITS, least_short_side)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "Split":
        """Some of the pictures, in the order of `indices`."""
        chosen = np.asarray(indices, np.int64)
        if isinstance(self.sources, np.ndarray):
            return Split(self.sources[chosen], self.labels[chosen])
        return Split([self.sources[index] for index in chosen], self.labels[chosen])

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """How many pictures each class has, int64 [classes]."""
        if self.labels.ndim == 2:
            return np.asarray(self.labels.sum(axis=0), np.int64)
        return np.bincount(self.labels, minlength=classes).astype(np.int64)


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
        notes: what was left out, a line each, for the user.
        task: 'single_label', or 'multi_label' where a picture may have any number of classes.
        names: of the pictures that are 'val', 'test' and 'left_out' (broken, or copies of what is scored on),
            relative to the data; what the run keeps to find its splits again. Empty where a rule is enough.
        broken: names and faults of what was left out for it.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    rule: str
    defaults: Defaults
    notes: tuple[str, ...] = ()
    task: str = SINGLE_LABEL
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    broken: tuple[tuple[str, str], ...] = ()

    def class_weights(self) -> NDArray[np.float32]:
        """What makes up for how often each class is met in training.

        Returns:
            float32 [classes]. Single-label: pictures ÷ (classes × the class's pictures), which scikit-learn
            calls 'balanced'; the mean over the training pictures is 1. Multi-label: pictures without the
            class ÷ pictures with it, which is `BCEWithLogitsLoss`'s pos_weight.
        """
        images, classes = len(self.train), len(self.classes)
        # Every class is learned from at least one picture; a subset that somebody cut out may lack one.
        counts = np.maximum(self.train.class_counts(classes), 1)
        if self.task == MULTI_LABEL:
            # A class that every picture has would otherwise weigh nothing.
            return np.asarray(np.maximum(images - counts, 1) / counts, np.float32)
        return np.asarray(images / (classes * counts), np.float32)


def partition(
    labels: Sequence[int],
    keys: Sequence[str],
    shares: Sequence[float],
    name: Callable[[int], str],
    contents: Sequence[bytes] | None = None,
    where: str = "",
) -> list[list[int]]:
    """Divide pictures into parts of about `shares`, class by class, by a hash of each picture's key.

    The same keys always give the same parts, on every machine. Each part gets at least one picture
    of every class. Copies of a picture count as one, and stay together.

    Args:
        labels: class of each picture.
        keys: unique text of each picture, such as its path relative to the data folder.
        shares: of each part but the last, which gets what is left.
        name: class index → what to call it in an error.
        contents: of each picture; copies have the same. None where there are no copies.
        where: said after the class's name in an error.

    Returns:
        For each part the indices of its pictures, ascending.

    Raises:
        DataError: a class has fewer different pictures than there are parts.
    """
    parts: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    for label, members in group(labels).items():
        units = [[member] for member in members]
        if contents is not None:
            same = group([contents[member] for member in members]).values()
            units = [[members[i] for i in copies] for copies in same]
        if len(units) < len(parts):
            copies = len(units) < len(members)
            raise DataError(too_few(f"{name(label)!r}{where}", len(units), len(parts), copies))
        ordered = sorted(units, key=lambda unit: min(digest_of(keys[member]) for member in unit))
        start = 0
        for part, count in zip(parts, quotas(len(units), shares), strict=True):
            part += [member for unit in ordered[start : start + count] for member in unit]
            start += count
    return [sorted(part) for part in parts]


def quotas(count: int, shares: Sequence[float]) -> list[int]:
    """How many of `count` pictures of a class each part gets: about its share, at least one.

    Args:
        count: at least one for each part.
        shares: of each part but the last, which gets what is left.
    """
    counts: list[int] = []
    for index, share in enumerate(shares):
        # Halves are rounded up, and what later parts need is left to them.
        spare = count - sum(counts) - (len(shares) - index)
        counts.append(min(max(1, int(count * share + 0.5)), spare))
    return [*counts, count - sum(counts)]


def group(labels: Sequence[K]) -> dict[K, list[int]]:
    """The indices at which each label stands."""
    groups: dict[K, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    return groups


def too_few(label: str, images: int, parts: int, copies: bool = False) -> str:
    """Of a class without an image for each part; `copies` tells that it has more, of the same."""
    return (
        f"class {label} has {images}{' different' * copies} usable image{'s' * (images != 1)}; at least "
        f"{parts} are needed, one for each of its {parts} splits, and 20 or more make sense"
    )


def digest_of(key: str) -> bytes:
    """What pictures are ordered by before they are divided."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
