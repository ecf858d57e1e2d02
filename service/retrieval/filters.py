"""Filters over attributes: one small tree, which every engine translates.

Logic has two values: a comparison with an attribute that an item doesn't have is false, and its negation
true. So `Not(Equals("label", "cat"))` finds items without a label too, which
`And((Exists("label"), Not(…)))` leaves out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.errors import InvalidRequest, listed, shorten
from service.retrieval.schema import AttributeType, AttributeValue, Schema, fits

MAX_NODES = 256
MAX_DEPTH = 16
MAX_VALUES = 10_000


@dataclass(frozen=True)
class Equals:
    """The attribute has this value."""

    attribute: str
    value: AttributeValue


@dataclass(frozen=True)
class In:
    """The attribute has one of these values; of none, nothing does."""

    attribute: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True)
class Range:
    """The attribute lies between bounds, of which one at least is given; numbers, and strings by code point.

    Attributes:
        attribute: its name.
        gt, gte: lower bound: above it, or at least it.
        lt, lte: upper bound.
    """

    attribute: str
    gt: AttributeValue | None = None
    gte: AttributeValue | None = None
    lt: AttributeValue | None = None
    lte: AttributeValue | None = None

    @property
    def bounds(self) -> list[tuple[str, AttributeValue]]:
        """Those given: (name, value)."""
        named = (("gt", self.gt), ("gte", self.gte), ("lt", self.lt), ("lte", self.lte))
        return [(name, value) for name, value in named if value is not None]


@dataclass(frozen=True)
class Exists:
    """The item has the attribute."""

    attribute: str


@dataclass(frozen=True)
class And:
    """All hold; of none, true."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Or:
    """One holds at least; of none, false."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    part: "Filter"


Filter = Equals | In | Range | Exists | And | Or | Not


def check_filter(schema: Schema, condition: Filter) -> None:
    """See that a filter can be answered.

    Raises:
        InvalidRequest: an attribute that the collection doesn't declare, a value of another type than its,
            a range without bounds or over bools, or a tree too deep or too large; names what was expected.
    """
    nodes = 0
    values = 0
    waiting: list[tuple[Filter, int]] = [(condition, 1)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"the filter is deeper than {MAX_DEPTH} levels; expected at most that many")
        match node:
            case And(parts) | Or(parts):
                waiting += [(part, depth + 1) for part in parts]
            case Not(part):
                waiting.append((part, depth + 1))
            case Exists(attribute):
                _declared(schema, attribute)
            case Equals(attribute, value):
                _check_value(schema, attribute, value)
            case In(attribute, listed_values):
                values += len(listed_values)
                _declared(schema, attribute)
                if values <= MAX_VALUES:
                    for value in listed_values:
                        _check_value(schema, attribute, value)
            case Range(attribute):
                _check_range(schema, node)
        if nodes + len(waiting) > MAX_NODES:
            raise InvalidRequest(
                f"the filter has more than {MAX_NODES} conditions; expected at most that many"
            )
        if values > MAX_VALUES:
            raise InvalidRequest(f"the filter lists {values:,} values; expected at most {MAX_VALUES:,}")


def matches(condition: Filter, attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether an item with these attributes is kept, by a filter that `check_filter` let through."""
    match condition:
        case And(parts):
            return all(matches(part, attributes) for part in parts)
        case Or(parts):
            return any(matches(part, attributes) for part in parts)
        case Not(part):
            return not matches(part, attributes)
    value = attributes.get(condition.attribute)
    if value is None:
        return False
    match condition:
        case Equals(_, wanted):
            return value == _like(value, wanted)
        case In(_, values):
            return any(value == _like(value, wanted) for wanted in values)
        case Range():
            return all(_within(name, value, _like(value, bound)) for name, bound in condition.bounds)
    return True


def _like(value: AttributeValue, wanted: AttributeValue) -> AttributeValue:
    # A float attribute rounds an int that it is compared with as it does one that it stores.
    return float(wanted) if isinstance(value, float) else wanted


def _within(name: str, value: AttributeValue, bound: AttributeValue) -> bool:
    # check_filter saw to it that both are numbers or both are strings.
    if isinstance(value, str) or isinstance(bound, str):
        low, high = str(value), str(bound)
        return {"gt": low > high, "gte": low >= high, "lt": low < high, "lte": low <= high}[name]
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[name]


def _declared(schema: Schema, attribute: str) -> AttributeType:
    if attribute not in schema:
        raise InvalidRequest(
            f"the filter asks for attribute {shorten(attribute)}; expected one that the collection declares: "
            f"{listed(sorted(schema))}"
        )
    return schema[attribute]


def _check_value(schema: Schema, attribute: str, value: AttributeValue) -> None:
    declared = _declared(schema, attribute)
    if not fits(declared, value):
        raise InvalidRequest(
            f"the filter compares attribute {shorten(attribute)} with {shorten(value)}; "
            f"expected {declared.described}"
        )


def _check_range(schema: Schema, condition: Range) -> None:
    declared = _declared(schema, condition.attribute)
    if declared is AttributeType.BOOL:
        raise InvalidRequest(
            f"the filter asks for a range of attribute {shorten(condition.attribute)}, which is a bool; "
            "expected a number or a string"
        )
    bounds: Sequence[tuple[str, AttributeValue]] = condition.bounds
    if not bounds:
        raise InvalidRequest(
            f"the filter's range of attribute {shorten(condition.attribute)} has no bounds; "
            "expected one of gt, gte, lt and lte at least"
        )
    for _, value in bounds:
        _check_value(schema, condition.attribute, value)
