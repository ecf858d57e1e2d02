"""Attribute values and filters → messages, and back."""

from collections.abc import Mapping

import numpy as np

from fovea.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from fovea.types import AttributeValue
from fovea.v1 import retrieval_pb2

_BOUNDS = ("gt", "gte", "lt", "lte")


def filter_message(condition: Filter | None) -> retrieval_pb2.Filter | None:
    """The message of a filter.

    Raises:
        TypeError: no filter, or a value of another type than an attribute can have.
        ValueError: an integer beyond 64 bits.
    """
    match condition:
        case None:
            return None
        case Equals(attribute, value):
            equals = retrieval_pb2.Equals(attribute=attribute, value=value_message(attribute, value))
            return retrieval_pb2.Filter(equals=equals)
        case In(attribute, values):
            messages = [value_message(attribute, value) for value in values]
            return retrieval_pb2.Filter(is_in=retrieval_pb2.In(attribute=attribute, values=messages))
        case Range(attribute):
            bounds = {
                name: value_message(attribute, value)
                for name in _BOUNDS
                if (value := getattr(condition, name)) is not None
            }
            return retrieval_pb2.Filter(range=retrieval_pb2.Range(attribute=attribute, **bounds))
        case Exists(attribute):
            return retrieval_pb2.Filter(exists=retrieval_pb2.Exists(attribute=attribute))
        case And(parts):
            return retrieval_pb2.Filter(all_of=_several(parts))
        case Or(parts):
            return retrieval_pb2.Filter(any_of=_several(parts))
        case Not(part):
            return retrieval_pb2.Filter(negation=filter_message(part))
    raise TypeError(f"expected a filter, for instance fovea.attribute('year') >= 2020; got {condition!r}")


def _several(parts: tuple[Filter, ...]) -> retrieval_pb2.Filters:
    messages = [message for part in parts if (message := filter_message(part)) is not None]
    return retrieval_pb2.Filters(filters=messages)


def value_message(name: str, value: AttributeValue) -> retrieval_pb2.AttributeValue:
    """The message of an attribute's value; NumPy's scalars are taken too.

    Raises:
        TypeError: a value of another type.
        ValueError: an integer beyond 64 bits.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool):  # before int, which it is too
        return retrieval_pb2.AttributeValue(bool_value=plain)
    if isinstance(plain, str):
        return retrieval_pb2.AttributeValue(string_value=plain)
    if isinstance(plain, int):
        if not -(2**63) <= plain < 2**63:
            raise ValueError(f"attribute {name!r} is {plain}; expected an integer of 64 bits")
        return retrieval_pb2.AttributeValue(int_value=plain)
    if isinstance(plain, float):
        return retrieval_pb2.AttributeValue(double_value=plain)
    raise TypeError(f"attribute {name!r} is a {type(value).__name__}; expected str, int, float or bool")


def read_attributes(messages: Mapping[str, retrieval_pb2.AttributeValue]) -> dict[str, AttributeValue]:
    """The attributes of an item."""
    values: dict[str, AttributeValue] = {}
    for name, message in messages.items():
        kind = message.WhichOneof("kind")
        if kind is not None:
            values[name] = getattr(message, kind)
    return values
