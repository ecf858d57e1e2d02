"""A data set by name, and its splits as batches."""

import os
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from training.assembly import assemble
from training.digits import digit_arrays, digits
from training.errors import DataError
from training.image_check import Track, untracked
from training.processor import keep_freed_memory
from training.sources import list_source
from training.splits import Dataset, Defaults, Split
from training.transforms import TrainTransform, Transform

# Batches that each worker holds ready: what evens out pictures of different size.
_PREFETCHED = 4

__all__ = ["Batches", "Dataset", "Defaults", "Split", "digit_arrays", "digits", "open_dataset"]


def open_dataset(data: str, skip_broken: bool = False, track: Track = untracked) -> Dataset:
    """'digits', or a folder of images (write ./digits for one of that name), a table, or shards.

    Raises:
        DataError, BrokenImages: as `sources.list_source` and `assembly.assemble`.
    """
    return digits() if data == "digits" else assemble(list_source(data), skip_broken, track)


class Batches:
    """A split's pictures, transformed, a batch at a time.

    Iterating gives (uint8 [batch, height, width, 3], int64 [batch]), or for several labels a picture
    (…, float32 [batch, classes]). What is drawn at random depends on the seed, the epoch and the picture
    alone, not on how many workers there are or where an epoch begins. One iteration at a time: workers
    live on from epoch to epoch, and the next one takes them over.

    Args:
        split: the pictures.
        transform: picture, source of randomness → pixels.
        batch_size: of all batches but the last, in each process.
        shuffle: whether each epoch has an order of its own. As for learning, pictures that would make a
            last batch of one, or would leave processes with unequal shares, are left out for the epoch.
        workers: processes that decode and transform; 0 does it in this one.
        seed: of everything random.
        rank: which of the processes that train together this is. It takes the rank-th of `world_size`
            equal parts of each batch of batch_size × world_size pictures; without `shuffle` every
            world_size-th batch, each as one process alone would have it.
        world_size: how many processes train together.
        order: epoch → indices of its pictures in their order, instead of `shuffle`'s; a pure function.

    Raises:
        DataError: there are fewer pictures to learn from than processes.

    Attributes:
        epoch: set it before each iteration.
        start_batch: how many batches of an epoch to pass over, undecoded; set it before an iteration that
            resumes an epoch, and back to 0 for the next. It doesn't count in `len`.
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
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; expected 0 to world_size - 1 = {world_size - 1}")
        if shuffle and len(split) < world_size:
            raise DataError(
                f"{len(split)} images can't be shared by {world_size} processes; expected at least as many"
            )
        self.split, self.transform, self.batch_size = split, transform, batch_size
        self.shuffle, self.workers, self.seed = shuffle, workers, seed
        self.rank, self.world_size = rank, world_size
        self._own_order = order
        self.epoch = self.start_batch = 0
        self._loader: DataLoader[tuple[Tensor, Tensor | int]] | None = None

    def __len__(self) -> int:
        """Batches of the epoch, of this process."""
        count = len(self.split) if self._own_order is None else len(self.order())
        return sum(1 for _ in self._spans(count))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._loader is None:
            self._loader = DataLoader(
                _Pixels(self.split, self.transform, self.seed),
                batch_sampler=_Order(self),
                num_workers=self.workers,
                # Otherwise the loader draws a seed from the global generator.
                generator=torch.Generator(),
                pin_memory=torch.cuda.is_available(),
                # Forking anew each epoch costs more than an epoch of a small data set.
                persistent_workers=self.workers > 0,
                worker_init_fn=_start_worker,
                prefetch_factor=_PREFETCHED if self.workers else None,
            )
        yield from self._loader

    def close(self) -> None:
        """End the workers; another iteration would start new ones."""
        self._loader = None

    def order(self) -> Tensor:
        """The epoch's pictures, int64 [count], before they are dealt to processes and batches."""
        if self._own_order is not None:
            return torch.tensor(self._own_order(self.epoch), dtype=torch.int64)
        if not self.shuffle:
            return torch.arange(len(self.split))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.split), generator=generator)

    def indices(self) -> Iterator[list[int]]:
        """Each batch's pictures, from `start_batch` on."""
        order = self.order()
        for first, last in islice(self._spans(len(order)), self.start_batch, None):
            yield order[first:last].tolist()

    def _spans(self, images: int) -> Iterator[tuple[int, int]]:
        """Where this process's batches begin and end in an order of so many images."""
        together = self.batch_size * self.world_size
        if not self.shuffle:
            for first in range(self.rank * self.batch_size, images, together):
                yield first, min(first + self.batch_size, images)
            return
        for first in range(0, images, together):
            count = min(together, images - first)
            count -= count % self.world_size
            # Batch normalisation can't learn from a batch of one picture; another epoch has it.
            if count == self.world_size and self.batch_size > 1 and first:
                return
            begin, end = (count * part // self.world_size for part in (self.rank, self.rank + 1))
            if end > begin:
                yield first + begin, first + end


class _Order(Sampler[list[tuple[int, int]]]):
    """Each batch as (epoch, picture): workers outlive an epoch, so they are told with each picture."""

    def __init__(self, batches: Batches) -> None:
        # Not kept strongly: the loader that holds this is held by the batches, and a cycle would leave
        # its processes to the garbage collector.
        self._batches = weakref.ref(batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = self._batches()
        if batches is not None:
            epoch = batches.epoch
            for indices in batches.indices():
                yield [(epoch, index) for index in indices]


def _start_worker(_worker: int) -> None:
    keep_freed_memory()
    # Ctrl-C and torchrun signal a whole process group; the main process still needs its loaders then.
    if hasattr(os, "setpgrp"):
        os.setpgrp()


class _Pixels(TorchDataset[tuple[Tensor, Tensor | int]]):
    """A split's transformed pictures by (epoch, index); a class is a number, which collating makes int64."""

    def __init__(self, split: Split, transform: Transform, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor | int]:
        epoch, index = place

        def draw() -> random.Random:
            return random.Random(f"{self.seed}/{epoch}/{index}")  # noqa: S311 - augmentation, not secrets

        transform, least = self.transform, self.transform.least_short_side
        if isinstance(transform, TrainTransform) and transform.sized:
            picture = self.split.picture(
                index, lambda width, height: transform.least_short_side_of(width, height, draw())
            )
        else:
            picture = self.split.picture(index, least)
        # A copy: Pillow's pixels are read-only, which PyTorch warns about.
        pixels = np.array(transform(picture, draw()))
        label = self.split.labels[index]
        target = torch.from_numpy(label.astype(np.float32)) if label.ndim else int(label)
        return torch.from_numpy(pixels), target


def default_workers(split: Split) -> int:
    """Processes that keep the network busy: none for pictures in memory, one a core for files."""
    if isinstance(split.sources, np.ndarray):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)
