"""fovea.v1.Filter → the filter tree."""

from collections.abc import Sequence

from fovea.v1 import retrieval_pb2 as pb

from service.errors import InvalidRequest, shorten
from service.retrieval.filters import (
    MAX_NODES,
    MAX_VALUES,
    And,
    Equals,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Range,
)
from service.retrieval.schema import AttributeValue


def filter_of(
    request: pb.DeleteRequest | pb.CountRequest | pb.SearchRequest | pb.ScanRequest,
) -> Filter | None:
    """The request's filter, if it has one; whether the collection can answer it is for the engine to say.

    Raises:
        InvalidRequest: a condition or value is missing, or there are too many.
    """
    return _Reader().read(request.filter) if request.HasField("filter") else None


def value_of(value: pb.AttributeValue, what: str) -> AttributeValue:
    """Raises:
    InvalidRequest: it is empty.
    """
    kind = value.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest(f"{what} has no value; expected a string, int, double or bool")
    plain: AttributeValue = getattr(value, kind)
    return plain


class _Reader:
    """Counts as it goes, so that a message full of tiny conditions is refused before it is translated.

    Protobuf's own limit of 100 levels bounds the recursion.
    """

    def __init__(self) -> None:
        self._nodes = self._values = 0

    def read(self, message: pb.Filter) -> Filter:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidRequest(
                f"the filter has more than {MAX_NODES} conditions; expected at most that many"
            )
        match message.WhichOneof("condition"):
            case "equals":
                equals = message.equals
                return Equals(equals.attribute, self._value(equals.attribute, equals.value))
            case "is_in":
                return In(message.is_in.attribute, self._in(message.is_in))
            case "range":
                return self._range(message.range)
            case "exists":
                return Exists(message.exists.attribute)
            case "all_of":
                return And(self._parts(message.all_of.filters))
            case "any_of":
                return Or(self._parts(message.any_of.filters))
            case "negation":
                return Not(self.read(message.negation))
        raise InvalidRequest(
            "a filter has no condition; expected one of equals, is_in, range, exists, all_of, any_of and "
            "negation"
        )

    def _parts(self, messages: Sequence[pb.Filter]) -> tuple[Filter, ...]:
        return tuple(self.read(message) for message in messages)

    def _in(self, message: pb.In) -> tuple[AttributeValue, ...]:
        self._values += len(message.values)
        if self._values > MAX_VALUES:
            raise InvalidRequest(f"the filter lists {self._values:,} values; expected at most {MAX_VALUES:,}")
        return tuple(self._value(message.attribute, value) for value in message.values)

    def _range(self, message: pb.Range) -> Range:
        bounds = {
            name: self._value(message.attribute, getattr(message, name))
            for name in ("gt", "gte", "lt", "lte")
            if message.HasField(name)
        }
        return Range(message.attribute, **bounds)

    @staticmethod
    def _value(attribute: str, value: pb.AttributeValue) -> AttributeValue:
        return value_of(value, f"the filter's comparison with attribute {shorten(attribute)}")
