"""Checks of arguments, with messages that name the value."""

import operator
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def at_least_one(name: str, value: int) -> int:
    """The value.

    Raises:
        TypeError: it is no whole number.
        ValueError: it isn't at least 1.
    """
    return _at_least(1, "at least 1", name, value)


def at_least_zero(name: str, value: int) -> int:
    """The value.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is negative.
    """
    return _at_least(0, "0 or more", name, value)


def real(name: str, value: float) -> float:
    """The value.

    Raises:
        TypeError: it is no number.
    """
    if not hasattr(value, "__float__"):  # which a text hasn't, though float() reads it
        raise TypeError(f"{name} is {shown(value)}; expected a number")
    return float(value)


def many(what: str, values: T) -> T:
    """The same values.

    Raises:
        TypeError: one value was given where several are expected.
    """
    one = isinstance(values, str | bytes | os.PathLike | Mapping)
    if one or not (isinstance(values, Iterable) or hasattr(values, "__aiter__")):
        raise TypeError(f"expected several {what}, for instance a list; got {shown(values)}")
    return values


def of_kind(what: str, kind: type[T], example: str, value: T) -> T:
    """The value.

    Raises:
        TypeError: it is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {shown(value)}; expected a fovea.{kind.__name__}, as {example}")
    return value


def _at_least(least: int, expected: str, name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}; expected a whole number, {expected}") from None
    if number < least:
        raise ValueError(f"{name} is {number}; expected {expected}")
    return number


def shown(value: object) -> str:
    """It and its type, cut short."""
    return f"{reprlib.repr(value)} ({type(value).__name__})"
