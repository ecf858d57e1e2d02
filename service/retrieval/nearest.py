"""The order of what was found: nearest first, and of equally near items those written first."""

from collections.abc import Iterable
from heapq import nsmallest
from typing import Protocol, TypeVar


class Found(Protocol):
    """An item that an engine found."""

    @property
    def score(self) -> float:
        """Higher is nearer."""

    @property
    def sequence(self) -> int:
        """Its place in the order of writing."""


T = TypeVar("T", bound=Found)


def nearest_of(found: Iterable[T], limit: int) -> list[T]:
    """The first so many, in this order."""
    return nsmallest(limit, found, key=lambda one: (-one.score, one.sequence))
