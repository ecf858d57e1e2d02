"""A network in this process: pictures are decoded and preprocessed here, as the service does it."""

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidImage
from service.preprocess import Preprocessing, preprocess
from training.evaluate.target import Answer, Target
from training.splits import Split

Pixels = NDArray[np.uint8]
NetworkOutputs = tuple[NDArray[np.float32] | None, NDArray[np.float32]]
"""Logits float32 [batch, classes], if there are classes, and embeddings float32 [batch, dimension]."""


class LocalTarget(Target):
    """Runs batches of preprocessed pictures.

    Attributes:
        preprocessing: what pictures go through first.
        batch_size: pictures a run.
    """

    preprocessing: Preprocessing
    batch_size: int

    @abstractmethod
    def run(self, pixels: Pixels) -> NetworkOutputs:
        """Uint8 [batch, crop_height, crop_width, 3] → logits and embeddings."""

    def answers(self, split: Split) -> Iterator[Answer]:
        """One for each picture, in their order; a broken one fails alone."""
        batch: list[tuple[int, Pixels | str]] = []
        for index, pixels in enumerate(prepared(split, self.preprocessing, 2 * self.batch_size)):
            batch.append((index, pixels))
            if len(batch) == self.batch_size:
                yield from self._answered(batch)
                batch = []
        yield from self._answered(batch)

    def _answered(self, batch: list[tuple[int, Pixels | str]]) -> Iterator[Answer]:
        usable = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        rows: Iterator[int] = iter(range(len(usable)))
        logits, embeddings = self.run(np.stack(usable)) if usable else (None, np.empty((0, 0), np.float32))
        for index, pixels in batch:
            if isinstance(pixels, str):
                yield Answer(index, fault=pixels)
            else:
                row = next(rows)
                yield Answer(index, None if logits is None else logits[row], embeddings[row])


def prepared(split: Split, spec: Preprocessing, ahead: int) -> Iterator[Pixels | str]:
    """Every picture as the graph's input, uint8 [crop_height, crop_width, 3], or why there is none.

    Threads will do: the decoder and the resizing release the interpreter lock.

    Args:
        split: the pictures.
        spec: what they go through.
        ahead: the most that wait, decoded, to be taken.
    """

    def one(index: int) -> Pixels | str:
        try:
            return preprocess(split.picture(index, spec.least_short_side), spec)
        except InvalidImage as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    waiting: deque[Future[Pixels | str]] = deque()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        try:
            for index in range(len(split)):
                waiting.append(pool.submit(one, index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
