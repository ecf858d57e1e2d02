"""Pairs of hashes that differ in few bits, and groups of what pairs hang together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.cli.quality.perceptual_hash import BITS

# Products at once, 16 MiB of float32; the pairs of a block, 16 bytes each, take 64 MiB at most.
_ROWS_AT_ONCE = 2048


def near_pairs(signs: NDArray[np.float32], most_bits: int) -> Iterator[NDArray[np.int64]]:
    """Every pair once that differs in at most so many bits, some at a time.

    All pairs are looked at, as matrix products: 100,000 pictures take some seconds.

    Args:
        signs: float32 [hashes, 64], +1 and −1.
        most_bits: 0 to 64.

    Yields:
        int64 [pairs, 2], the lower number first.
    """
    least = BITS - 2 * most_bits - 0.5
    for top in range(0, len(signs), _ROWS_AT_ONCE):
        rows = signs[top : top + _ROWS_AT_ONCE]
        for left in range(top, len(signs), _ROWS_AT_ONCE):
            pairs = np.argwhere(rows @ signs[left : left + _ROWS_AT_ONCE].T > least)
            pairs += (top, left)
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            if len(pairs):
                yield pairs


class Groups:
    """A union-find forest with path halving and union by size (Tarjan & van Leeuwen 1984)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))
        self._sizes = [1] * count

    def find(self, element: int) -> int:
        """The element that stands for its group."""
        while self._parents[element] != element:
            self._parents[element] = self._parents[self._parents[element]]
            element = self._parents[element]
        return element

    def join(self, one: int, other: int) -> None:
        """Make two groups one."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        if self._sizes[one] < self._sizes[other]:
            one, other = other, one
        self._parents[other] = one
        self._sizes[one] += self._sizes[other]

    def several(self) -> list[list[int]]:
        """The groups of two and more, the largest first, then by their first element."""
        members: dict[int, list[int]] = {}
        for element in range(len(self._parents)):
            members.setdefault(self.find(element), []).append(element)
        found = [group for group in members.values() if len(group) > 1]
        return sorted(found, key=lambda group: (-len(group), group[0]))
