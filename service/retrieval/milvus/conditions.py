"""Filters as Milvus's boolean expressions."""

from collections.abc import Iterable

from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from service.retrieval.milvus.table import ID, SEQUENCE, Table, key_of
from service.retrieval.schema import AttributeValue

# Milvus 2.3 has no constants of its own.
TRUE, FALSE = f"{SEQUENCE} >= 0", f"{SEQUENCE} < 0"
_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


def translated(table: Table, condition: Filter | None) -> str:
    """The expression for a filter that `check_filter` let through; None: all items.

    A missing value is "", which is below all others: so the logic has two values, as ours.
    """
    match condition:
        case None:
            return TRUE
        case And(parts):
            return _joined(" and ", (translated(table, part) for part in parts), TRUE)
        case Or(parts):
            return _joined(" or ", (translated(table, part) for part in parts), FALSE)
        case Not(part):
            return f"(not ({translated(table, part)}))"
        case Exists(attribute):
            return f'({table.column(attribute)} > "")'
        case Equals(attribute, value):
            return f"({table.column(attribute)} == {_key(table, attribute, value)})"
        case In(attribute, values):
            keys = dict.fromkeys(_key(table, attribute, value) for value in values)
            return f"({table.column(attribute)} in [{','.join(keys)}])" if keys else FALSE
        case Range(attribute):
            column = table.column(attribute)
            bounds = [
                f"{column} {_SIGNS[name]} {_key(table, attribute, value)}" for name, value in condition.bounds
            ]
            return _joined(" and ", [f'{column} > ""', *bounds], TRUE)


def ids_in(ids: Iterable[str]) -> str:
    """Items by their ids."""
    return f"{ID} in [{','.join(map(quoted, ids))}]"


def quoted(text: str) -> str:
    """A string of an expression."""
    return f'"{text.translate(_ESCAPES)}"'


def _joined(word: str, parts: Iterable[str], of_none: str) -> str:
    joined = word.join(parts)
    return f"({joined})" if joined else of_none


def _key(table: Table, attribute: str, value: AttributeValue) -> str:
    return quoted(key_of(table.spec.attributes[attribute], value))
