"""A data set by name, and its splits as batches."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training.digits import digit_arrays, digits
from training.folder import read_folder
from training.image_check import Track, untracked
from training.splits import Dataset, Defaults, Split
from training.transforms import Transform

__all__ = ["Batches", "Dataset", "Defaults", "Split", "digit_arrays", "digits", "open_dataset"]


def open_dataset(data: str, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """'digits', or the path of a folder of images (write ./digits for a folder of that name).

    Raises:
        DataError, BrokenImages: as `folder.read_folder`.
    """
    return digits() if data == "digits" else read_folder(Path(data), skip_broken, track)


class Batches:
    """A split's pictures, transformed, a batch at a time.

    Iterating gives (uint8 [batch, height, width, 3], int64 [batch]). What is drawn at random
    depends on the seed, the epoch and the picture alone, not on how many workers there are.

    Args:
        split: the pictures.
        transform: picture, source of randomness → pixels.
        batch_size: of all batches but the last.
        shuffle: whether each epoch has an order of its own.
        workers: processes that decode and transform; 0 does it in this one.
        seed: of everything random.

    Attributes:
        epoch: set it before each iteration.
    """

    def __init__(
        self,
        split: Split,
        transform: Transform,
        batch_size: int,
        *,
        shuffle: bool = False,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.split, self.transform, self.batch_size = split, transform, batch_size
        self.shuffle, self.workers, self.seed = shuffle, workers, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-(len(self.split) - self._left_out()) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (
            torch.randperm(len(self.split), generator=generator).tolist()
            if self.shuffle
            else list(range(len(self.split)))
        )
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            _Pixels(self.split, self.transform, f"{self.seed}/{self.epoch}"),
            batch_size=self.batch_size,
            sampler=order[: len(order) - self._left_out()],
            num_workers=self.workers,
            # Otherwise the loader draws a seed from the global generator.
            generator=generator,
            pin_memory=torch.cuda.is_available(),
        )
        yield from loader

    def _left_out(self) -> int:
        # Batch normalisation can't learn from a batch of one picture; another epoch has it.
        return int(self.shuffle and len(self.split) > 1 and len(self.split) % self.batch_size == 1)


class _Pixels(TorchDataset[tuple[Tensor, int]]):
    """The pictures of one epoch by index."""

    def __init__(self, split: Split, transform: Transform, seed: str) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        draw = random.Random(f"{self.seed}/{index}")  # noqa: S311 - augmentation, not secrets
        # A copy: Pillow's pixels are read-only, which PyTorch warns about.
        picture = self.split.picture(index, self.transform.least_short_side)
        pixels = np.array(self.transform(picture, draw))
        return torch.from_numpy(pixels), int(self.split.labels[index])


def default_workers(split: Split) -> int:
    """Processes that keep the network busy: none for pictures in memory, one a core for files."""
    if isinstance(split.sources, np.ndarray):
        return 0
    return min(os.cpu_count() or 1, 16)
