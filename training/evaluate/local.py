"""A network in this process: pictures are decoded and preprocessed here, as the service does it."""

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidImage
from service.preprocess import Picture, Preprocessing, preprocess
from training.evaluate.target import Answer, Target
from training.evaluate.ten_crop import CROPS, TenCrop
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

    def answers(self, split: Split, ten_crop: TenCrop | None = None) -> Iterator[Answer]:
        """As `Target.answers`; a broken picture fails alone."""
        spec, views = self.preprocessing, self._as_served
        pictures = self.batch_size
        if ten_crop is not None:
            spec, views = ten_crop.spec, ten_crop.crops
            pictures = max(1, self.batch_size // CROPS)
        batch: list[tuple[int, Pixels | str]] = []
        for index, pixels in enumerate(prepared(split, spec.least_short_side, views, 2 * pictures)):
            batch.append((index, pixels))
            if len(batch) == pictures:
                yield from self._answered(batch)
                batch = []
        yield from self._answered(batch)

    def _as_served(self, picture: Picture) -> Pixels:
        return preprocess(picture, self.preprocessing)[None]

    def _answered(self, batch: list[tuple[int, Pixels | str]]) -> Iterator[Answer]:
        usable = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        logits, embeddings = (
            self.run(np.concatenate(usable)) if usable else (None, np.empty((0, 0), np.float32))
        )
        row = 0
        for index, pixels in batch:
            if isinstance(pixels, str):
                yield Answer(index, fault=pixels)
                continue
            for _ in pixels:
                yield Answer(index, None if logits is None else logits[row], embeddings[row])
                row += 1


def prepared(
    split: Split, least_short_side: int | None, views: Callable[[Picture], Pixels], ahead: int
) -> Iterator[Pixels | str]:
    """Every picture as the graph's inputs, or why there are none.

    Threads will do: the decoder and the resizing release the interpreter lock.

    Args:
        split: the pictures.
        least_short_side: as of `Split.picture`.
        views: a picture → uint8 [views, crop_height, crop_width, 3].
        ahead: the most that wait, decoded, to be taken.
    """

    def one(index: int) -> Pixels | str:
        try:
            return views(split.picture(index, least_short_side))
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
