"""The attributes that a collection declares: their types, by which filters and groups go."""

import math
from collections.abc import Mapping
from enum import Enum

from service.errors import InvalidRequest, shorten

AttributeValue = str | int | float | bool
MAX_ATTRIBUTES = 64
MAX_NAME_BYTES = 64
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class AttributeType(Enum):
    """What a declared attribute holds."""

    STRING = "string"
    INT = "int"
    """64 bits, signed."""
    FLOAT = "float"
    """Finite; takes an int too, which it stores as a float."""
    BOOL = "bool"

    @property
    def described(self) -> str:
        """For an error's "expected …"."""
        return {
            AttributeType.STRING: "a string of UTF-8",
            AttributeType.INT: "an int of 64 bits",
            AttributeType.FLOAT: "a finite float",
            AttributeType.BOOL: "a bool",
        }[self]


Schema = Mapping[str, AttributeType]


def check_schema(schema: Schema) -> None:
    """Raises:
    InvalidRequest: too many attributes, or a name that is empty, too long or no UTF-8.
    """
    if len(schema) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"{len(schema)} attributes are declared; expected at most {MAX_ATTRIBUTES}")
    for name in schema:
        if not is_text(name) or not 1 <= len(name.encode()) <= MAX_NAME_BYTES or "\0" in name:
            raise InvalidRequest(
                f"attribute name {shorten(name)}; expected 1 to {MAX_NAME_BYTES} bytes of UTF-8 without "
                "zero bytes"
            )


def fits(declared: AttributeType, value: object) -> bool:
    """Whether a value can be compared with an attribute of this type, and stored as one."""
    match declared:
        case AttributeType.STRING:
            # PostgreSQL's text has no zero byte.
            return isinstance(value, str) and is_text(value) and "\0" not in value
        case AttributeType.BOOL:
            return isinstance(value, bool)
        case AttributeType.INT:
            return isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX
        case AttributeType.FLOAT:
            return (
                isinstance(value, float | int)
                and not isinstance(value, bool)
                and math.isfinite(value)
                and INT64_MIN <= (value if isinstance(value, int) else 0) <= INT64_MAX
            )


def is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can hold: a lone surrogate can't be."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
