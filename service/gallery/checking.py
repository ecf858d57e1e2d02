"""What a request brings, checked: all at once, and one by one only where something is wrong."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import InvalidRequest, RequestError, VectorMismatch
from service.gallery.embedder import checked

T = TypeVar("T")


def checked_together(
    check: Callable[[Sequence[T]], object], values: Sequence[T | RequestError]
) -> list[T | RequestError]:
    """As `checked`, by a check that takes several values, and less time for all of them than for each."""

    def alone(value: T) -> None:
        check([value])

    good = [value for value in values if not isinstance(value, RequestError)]
    try:
        if good:
            check(good)
    except (InvalidRequest, VectorMismatch):
        return checked(alone, values)
    return list(values)
