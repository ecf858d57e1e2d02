"""A target whose answers are known."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from training.evaluate.data import LabelledPictures
from training.evaluate.target import Answer, Target
from training.evaluate.ten_crop import TenCrop
from training.splits import Split


class Known(Target):
    """Says what it was told to, in order; a text is a fault."""

    kind: ClassVar[str] = "checkpoint"
    temperature: float = 1.0

    def __init__(
        self,
        labels: tuple[str, ...],
        said: list[list[float] | str],
        temperature: float = 1.0,
        task: str = "single_label",
    ) -> None:
        self.name, self.task, self.labels, self.facts = "known", task, labels, {}
        self.temperature = temperature
        self._said = said

    def answers(self, split: Split, ten_crop: TenCrop | None = None) -> Iterator[Answer]:
        for index, said in enumerate(self._said):
            if isinstance(said, str):
                yield Answer(index, fault=said)
            else:
                angle = index * 0.1
                vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
                yield Answer(index, np.array(said, np.float32) if self.labels else None, vector)


def pictures(classes: tuple[str, ...], labels: list[int]) -> LabelledPictures:
    """Black ones with one label each."""
    sources: NDArray[np.uint8] = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return LabelledPictures(Split(sources, np.array(labels, np.int64)), classes, "made up")
