"""The declared attributes of a segment's rows as arrays, by which filters and groups go.

As with a segment's vectors, rows that readers see never change; the writer fills those behind them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.retrieval.checks import unpack_attributes
from service.retrieval.schema import AttributeType, AttributeValue, Schema

Mask = NDArray[np.bool_]
Bounds = Sequence[tuple[str, AttributeValue]]
_DTYPES = {AttributeType.INT: np.int64, AttributeType.FLOAT: np.float64, AttributeType.BOOL: np.bool_}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


class Column(ABC):
    """One attribute. Masks are bool [used]: what holds of the first `used` rows."""

    @abstractmethod
    def write(self, start: int, values: Sequence[AttributeValue | None]) -> None:
        """Set rows from `start` on; None: without the attribute. Rows behind them are forgotten."""

    @abstractmethod
    def copy(self, start: int, other: Self, rows: NDArray[np.int64]) -> None:
        """Set rows from `start` on to those rows of another column of this type."""

    @abstractmethod
    def value(self, row: int) -> AttributeValue | None:
        """What the row has."""

    @abstractmethod
    def exists(self, used: int) -> Mask:
        """The row has the attribute."""

    @abstractmethod
    def equals(self, value: AttributeValue, used: int) -> Mask:
        """It has this value."""

    @abstractmethod
    def is_in(self, values: Sequence[AttributeValue], used: int) -> Mask:
        """It has one of these values."""

    @abstractmethod
    def within(self, bounds: Bounds, used: int) -> Mask:
        """It lies between all bounds (see `Range.bounds`)."""


class NumberColumn(Column):
    """Ints, floats or bools: [capacity] of them, and which are there."""

    def __init__(self, declared: AttributeType, capacity: int) -> None:
        self._values: NDArray[Any] = np.zeros(capacity, _DTYPES[declared])
        self._there = np.zeros(capacity, np.bool_)

    def write(self, start: int, values: Sequence[AttributeValue | None]) -> None:
        """See `Column.write`."""
        rows = slice(start, start + len(values))
        self._values[rows] = np.array([0 if value is None else value for value in values], self._values.dtype)
        self._there[rows] = [value is not None for value in values]

    def copy(self, start: int, other: Self, rows: NDArray[np.int64]) -> None:
        """See `Column.copy`."""
        here = slice(start, start + len(rows))
        self._values[here], self._there[here] = other._values[rows], other._there[rows]

    def value(self, row: int) -> AttributeValue | None:
        """See `Column.value`."""
        if not self._there[row]:
            return None
        value: AttributeValue = self._values[row].item()
        return value

    def exists(self, used: int) -> Mask:
        """See `Column.exists`."""
        return self._there[:used].copy()

    def equals(self, value: AttributeValue, used: int) -> Mask:
        """See `Column.equals`."""
        return np.asarray(self._there[:used] & (self._values[:used] == value))

    def is_in(self, values: Sequence[AttributeValue], used: int) -> Mask:
        """See `Column.is_in`."""
        return self._there[:used] & np.isin(self._values[:used], np.array(values, self._values.dtype))

    def within(self, bounds: Bounds, used: int) -> Mask:
        """See `Column.within`."""
        mask = self.exists(used)
        for name, bound in bounds:
            mask &= _COMPARE[name](self._values[:used], bound)
        return mask


class StringColumn(Column):
    """Strings: each distinct one once, and int32 [capacity] that number them; 0: not there.

    What a filter asks is asked once of each distinct string, so strings are compared as Python does it,
    by code point. They are the segment's own: those that no row has any more go when it is compacted.
    """

    def __init__(self, capacity: int) -> None:
        self._codes = np.zeros(capacity, np.int32)
        self._strings: list[str | None] = [None]
        self._numbers: dict[str | None, int] = {None: 0}

    def write(self, start: int, values: Sequence[AttributeValue | None]) -> None:
        """See `Column.write`."""
        self._forget(start)
        strings = [None if value is None else str(value) for value in values]
        for text in strings:
            if text not in self._numbers:
                # In this order: whoever finds a number finds its string.
                self._strings.append(text)
                self._numbers[text] = len(self._strings) - 1
        self._codes[start : start + len(values)] = [self._numbers[text] for text in strings]

    def copy(self, start: int, other: Self, rows: NDArray[np.int64]) -> None:
        """See `Column.copy`."""
        self.write(start, [other._strings[code] for code in other._codes[rows].tolist()])

    def value(self, row: int) -> AttributeValue | None:
        """See `Column.value`."""
        return self._strings[int(self._codes[row])]

    def exists(self, used: int) -> Mask:
        """See `Column.exists`."""
        return np.asarray(self._codes[:used] > 0)

    def equals(self, value: AttributeValue, used: int) -> Mask:
        """See `Column.equals`."""
        return np.asarray(self._codes[:used] == self._numbers.get(str(value), -1))

    def is_in(self, values: Sequence[AttributeValue], used: int) -> Mask:
        """See `Column.is_in`."""
        numbers = [self._numbers.get(str(value), -1) for value in values]
        return np.isin(self._codes[:used], np.array(numbers, np.int32))

    def within(self, bounds: Bounds, used: int) -> Mask:
        """See `Column.within`."""
        compared = [(_COMPARE[name], bound) for name, bound in bounds]
        holds = np.array(
            [
                text is not None and all(compare(text, bound) for compare, bound in compared)
                for text in self._strings.copy()
            ],
            np.bool_,
        )
        return holds[self._codes[:used]]

    def _forget(self, start: int) -> None:
        """The strings that only rows from `start` on had, which a write that was dropped left behind."""
        # Numbers are given in the order of rows, so those of the first rows are the first ones.
        known = 1 + int(self._codes[:start].max(initial=0))
        for text in self._strings[known:]:
            del self._numbers[text]
        del self._strings[known:]


class Columns:
    """All declared attributes of a segment's rows, by name."""

    def __init__(self, schema: Schema, capacity: int) -> None:
        self._columns: dict[str, Column] = {
            name: StringColumn(capacity)
            if declared is AttributeType.STRING
            else NumberColumn(declared, capacity)
            for name, declared in schema.items()
        }

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def write(self, start: int, texts: Sequence[str]) -> None:
        """Set rows from `start` on to what `pack_items` wrote of each."""
        if self._columns:
            rows = [unpack_attributes(text) for text in texts]
            for name, column in self._columns.items():
                column.write(start, [row.get(name) for row in rows])

    def copy(self, start: int, other: "Columns", rows: NDArray[np.int64]) -> None:
        """Set rows from `start` on to those rows of another segment of the collection."""
        for name, column in self._columns.items():
            column.copy(start, other[name], rows)
