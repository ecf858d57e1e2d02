"""Whoever can be asked about images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Preprocessing
from training.errors import TargetError
from training.evaluate.ten_crop import TenCrop
from training.splits import Split


@dataclass(frozen=True, eq=False)
class Answer:
    """What was said of one picture, or of one view of it.

    Attributes:
        index: the picture's, in its split.
        logits: float32 [classes]; None where the target has no classes, or failed.
        embedding: float32 [dimension], of unit length; None where it failed.
        fault: why there is no answer; empty where there is one.
    """

    index: int
    logits: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    fault: str = ""

    @property
    def is_finite(self) -> bool:
        """Whether everything that was said is a finite number."""
        said = (values for values in (self.logits, self.embedding) if values is not None)
        return all(bool(np.isfinite(values).all()) for values in said)


class Target(ABC):
    """A network somewhere.

    Attributes:
        kind: 'checkpoint', 'package' or 'server'.
        name: which one, for people.
        task: 'single_label', 'multi_label' or 'embedding', which has no classes.
        labels: in the order of the logits; empty for 'embedding'.
        facts: what else a report says about it, by name.
        preprocessing: what it does to a picture; None where that isn't known.
    """

    kind: ClassVar[str]
    name: str
    task: str
    labels: tuple[str, ...]
    facts: dict[str, str]
    preprocessing: Preprocessing | None = None

    @abstractmethod
    def answers(self, split: Split, ten_crop: TenCrop | None = None) -> Iterator[Answer]:
        """One for each picture of the split, in their order; labels are not looked at.

        Args:
            split: the pictures.
            ten_crop: None asks about each picture as it is served; else one answer for each of the picture's
                ten crops follows another, all with the picture's index. A broken picture may have fewer.

        Raises:
            TargetError: the target can't answer at all.
        """

    @property
    @abstractmethod
    def temperature(self) -> float:
        """What it divides logits by for its probabilities; of a server known after its answers only."""

    def ten_crop(self) -> TenCrop:
        """How ten crops are made for it.

        Raises:
            TargetError: what it does to pictures isn't known.
        """
        if self.preprocessing is None:
            raise TargetError(
                f"{self.name} doesn't say how it resizes images, so ten crops can't be cut as it would do; "
                "expected a server of this version, or evaluate the package itself"
            )
        return TenCrop(self.preprocessing)
