"""Filters over the attributes that a collection declares.

`(fovea.attribute("year") >= 2020) & ~fovea.attribute("label").is_in(["cat", "dog"])`, or the same by its
parts: `And((Range("year", gte=2020), Not(In("label", ("cat", "dog")))))`.

A comparison with an attribute that an item doesn't have is false, and its negation true; so
`fovea.attribute("label") != "cat"` finds items without a label too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from fovea.types import AttributeValue


class Filter:
    """What items are kept; `&`, `|` and `~` combine filters."""

    def __and__(self, other: "Filter") -> "And":
        return And((*_parts(self, And), *_parts(other, And)))

    def __or__(self, other: "Filter") -> "Or":
        return Or((*_parts(self, Or), *_parts(other, Or)))

    def __invert__(self) -> "Not":
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a filter is neither true nor false: combine filters with & | ~ instead of and, or, not, and "
            "write a range as (a >= low) & (a < high)"
        )


@dataclass(frozen=True)
class Equals(Filter):
    """The attribute has this value."""

    attribute: str
    value: AttributeValue


@dataclass(frozen=True)
class In(Filter):
    """The attribute has one of these values; of none, nothing does."""

    attribute: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True)
class Range(Filter):
    """The attribute lies between bounds, of which one at least is given; numbers, and strings by code point.

    Attributes:
        attribute: its name.
        gt: above it.
        gte: at least it.
        lt: below it.
        lte: at most it.
    """

    attribute: str
    gt: AttributeValue | None = None
    gte: AttributeValue | None = None
    lt: AttributeValue | None = None
    lte: AttributeValue | None = None


@dataclass(frozen=True)
class Exists(Filter):
    """The item has the attribute."""

    attribute: str


@dataclass(frozen=True)
class And(Filter):
    """All hold; of none, true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Or(Filter):
    """One holds at least; of none, false."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not(Filter):
    """It does not hold."""

    part: Filter


class Attribute:
    """An attribute by its name; comparing it gives a filter."""

    __hash__ = None  # type: ignore[assignment] # equality is a filter

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: AttributeValue) -> Equals:  # type: ignore[override] # as above
        return Equals(self._name, value)

    def __ne__(self, value: AttributeValue) -> Not:  # type: ignore[override] # as above
        return Not(Equals(self._name, value))

    def __gt__(self, value: AttributeValue) -> Range:
        return Range(self._name, gt=value)

    def __ge__(self, value: AttributeValue) -> Range:
        return Range(self._name, gte=value)

    def __lt__(self, value: AttributeValue) -> Range:
        return Range(self._name, lt=value)

    def __le__(self, value: AttributeValue) -> Range:
        return Range(self._name, lte=value)

    def is_in(self, values: Iterable[AttributeValue]) -> In:
        """It has one of these values.

        Raises:
            TypeError: one string was given where several values are expected.
        """
        if isinstance(values, str):
            raise TypeError(f"expected several values; put {values!r} into a list")
        return In(self._name, tuple(values))

    def exists(self) -> Exists:
        """The item has it."""
        return Exists(self._name)


def attribute(name: str) -> Attribute:
    """An attribute, to be compared: `attribute("year") >= 2020`."""
    return Attribute(name)


def _parts(condition: Filter, kind: "type[And] | type[Or]") -> tuple[Filter, ...]:
    """So that a & b & c is one And of three."""
    if not isinstance(condition, Filter):
        raise TypeError(f"expected a filter; got {type(condition).__name__}")
    return condition.parts if isinstance(condition, kind) else (condition,)
