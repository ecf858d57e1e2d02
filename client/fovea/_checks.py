"""Checks of arguments, with messages that name the value."""

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def at_least_one(name: str, value: int) -> int:
    """The value.

    Raises:
        ValueError: it isn't at least 1.
    """
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")
    return value


def many(what: str, values: T) -> T:
    """The same values.

    Raises:
        TypeError: one value was given where several are expected.
    """
    one = isinstance(values, str | bytes | os.PathLike | Mapping)
    if one or not (isinstance(values, Iterable) or hasattr(values, "__aiter__")):
        raise TypeError(f"expected several {what}, for instance a list; got {_shown(values)}")
    return values


def of_kind(what: str, kind: type[T], example: str, value: T) -> T:
    """The value.

    Raises:
        TypeError: it is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {_shown(value)}; expected a fovea.{kind.__name__}, as {example}")
    return value


def _shown(value: object) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"
