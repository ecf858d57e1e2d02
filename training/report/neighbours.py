"""Which pictures lie next to each other in the embedding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 5
# Among more, evenly spread ones are searched: all against all takes time with the square.
MAX_SEARCHED = 20_000
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest others of each picture, nearest first.

    Attributes:
        rows: int64 [pictures, k].
        cosines: float32 [pictures, k].
        searched: among how many.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]
    searched: int


def nearest(embeddings: NDArray[np.float32], most: int = NEIGHBOURS) -> Neighbours:
    """Of each picture, by cosine, itself left out; of equal ones the first.

    Args:
        embeddings: float32 [pictures, dimension], of unit length.
        most: how many; fewer where there are fewer others.
    """
    count = len(embeddings)
    gallery = np.unique(np.linspace(0, count - 1, min(count, MAX_SEARCHED)).round().astype(np.int64))
    k = min(most, count - 1, len(gallery))
    rows, cosines = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    vectors = embeddings[gallery]
    for start in range(0, count if k else 0, _BLOCK):
        own = np.arange(start, min(start + _BLOCK, count))
        similar = embeddings[own] @ vectors.T
        similar[own[:, None] == gallery] = -np.inf
        # Few are wanted of many: sort those only.
        few = np.sort(np.argpartition(-similar, k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(similar, few, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows[own] = gallery[np.take_along_axis(few, order, axis=1)]
        cosines[own] = np.take_along_axis(values, order, axis=1)
    return Neighbours(rows, cosines, len(gallery))
