"""Everything that a target said of a data set, gathered."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from training.evaluate.target import Answer, Target
from training.evaluate.ten_crop import CROPS, TenCrop, mean_directions, mean_logits
from training.splits import Split

# Larger matrices lie in a temporary file, of which the system keeps in memory what it has room for.
MAX_BYTES_IN_MEMORY = 1 << 30

Advance = Callable[[int], None]
"""Called with the number of images done."""


@dataclass(frozen=True)
class Failure:
    """A picture that got no answer.

    Attributes:
        index: its place in the split.
        reason: why.
    """

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Predictions:
    """Row i of everything is of the same picture; pictures that failed have no row.

    Attributes:
        indices: int64 [images], places in the split, ascending.
        logits: float32 [images, classes]; None for a target without classes.
        embeddings: float32 [images, dimension], of unit length.
        failures: the pictures that got no answer.
        untempered: of ten crops: logits of the mean probabilities at temperature 1; where there is one crop
            the `logits` give these too, and this is None.
    """

    indices: NDArray[np.int64]
    logits: NDArray[np.float32] | None
    embeddings: NDArray[np.float32]
    failures: tuple[Failure, ...]
    untempered: NDArray[np.float32] | None = None


def gather(target: Target, split: Split, advance: Advance, ten_crop: TenCrop | None = None) -> Predictions:
    """Ask about every picture; the pictures themselves are never held.

    Args:
        target: who is asked.
        split: the pictures.
        advance: told the number of pictures done.
        ten_crop: asks about ten crops of each instead; what is gathered are the means over them. The crops'
            own logits are held until the end, since a server's temperature is known only then.

    Raises:
        TargetError: the target can't answer at all.
    """
    views = 1 if ten_crop is None else CROPS
    logits, embeddings = _Rows(len(split) * views), _Rows(len(split) * views)
    indices: list[int] = []
    failures: list[Failure] = []
    answers = target.answers(split) if ten_crop is None else target.answers(split, ten_crop)
    for index, of_one in groupby(answers, key=lambda answer: answer.index):
        said = list(of_one)
        fault = next(filter(None, map(_fault, said)), "")
        if fault:
            failures.append(Failure(index, fault))
        else:
            for answer in said:
                _keep(answer, logits, embeddings)
            indices.append(index)
        advance(1)
    found = Predictions(
        indices=np.array(indices, np.int64),
        logits=logits.taken() if target.labels else None,
        embeddings=embeddings.taken(),
        failures=tuple(failures),
    )
    return found if ten_crop is None else _means(found, target)


def _means(crops: Predictions, target: Target) -> Predictions:
    """Of ten rows a picture, one."""
    embeddings, logits = mean_directions(crops.embeddings), crops.logits
    if logits is None or not len(crops.indices):
        return replace(crops, embeddings=embeddings)
    shape = (len(crops.indices), logits.shape[1])
    served = target.temperature
    at = {value: mean_logits(logits, target.task, value, _matrix(*shape)) for value in {served, 1.0}}
    return replace(crops, logits=at[served], embeddings=embeddings, untempered=at[1.0])


def _fault(answer: Answer) -> str:
    return answer.fault or ("" if answer.is_finite else "the network's output isn't a finite number")


def _keep(answer: Answer, logits: "_Rows", embeddings: "_Rows") -> None:
    if answer.logits is not None:
        logits.add(answer.logits)
    if answer.embedding is not None:
        embeddings.add(answer.embedding)


class _Rows:
    """A float32 matrix filled from the top, as wide as its first row."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._matrix: NDArray[np.float32] | None = None

    def add(self, row: NDArray[np.float32]) -> None:
        if self._matrix is None:
            self._matrix = _matrix(self._most, len(row))
        self._matrix[self._count] = row
        self._count += 1

    def taken(self) -> NDArray[np.float32]:
        if self._matrix is None:
            return np.empty((0, 1), np.float32)
        return self._matrix[: self._count]


def _matrix(rows: int, columns: int) -> NDArray[np.float32]:
    if rows * columns * 4 <= MAX_BYTES_IN_MEMORY:
        return np.empty((rows, columns), np.float32)
    # Nameless: gone with the last view of it.
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))
