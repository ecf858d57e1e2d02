"""Filters as SQL."""

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Literal

from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from service.retrieval.pgvector.table import COLUMN_TYPES, PREFIX_CHARACTERS, Table
from service.retrieval.schema import AttributeType, AttributeValue

_ONE = "{} {} %s::{}"
_ANY = "{} {} ANY(%s::{}[])"
# For a value, and for its prefix.
_BOUNDS = {"gt": (">", ">="), "gte": (">=", ">="), "lt": ("<", "<="), "lte": ("<=", "<=")}


class Conditions:
    """What follows WHERE, with the parameters that stand in it.

    SQL's logic has three values, ours two. Where an attribute is missing a comparison is NULL, and AND and OR
    of such are true exactly where they would be with false in its place; `IS NOT TRUE` ends it at a negation.
    """

    def __init__(self, table: Table, condition: Filter | None, *, by_prefix: bool = True) -> None:
        """Translate a filter that `check_filter` let through.

        Args:
            table: whose columns are compared.
            condition: None: all items.
            by_prefix: compare strings' prefixes too, which the indexes have. It leaves the answer as it is,
                but halves the planner's estimate of it.
        """
        self._table, self._by_prefix = table, by_prefix
        self.parameters: list[object] = []
        self.sql: Composable = SQL("true") if condition is None else self._translated(condition)

    def _translated(self, condition: Filter) -> Composable:
        match condition:
            case And(parts):
                return self._joined(" AND ", parts, "true")
            case Or(parts):
                return self._joined(" OR ", parts, "false")
            case Not(part):
                return SQL("({} IS NOT TRUE)").format(self._translated(part))
            case Exists(attribute):
                return SQL("({} IS NOT NULL)").format(self._table.column(attribute))
            case Equals(attribute, value):
                return self._compared(attribute, "=", "=", [value], _ONE)
            case In(attribute, values):
                return self._compared(attribute, "=", "=", list(values), _ANY) if values else SQL("false")
            case Range(attribute):
                bounds = [
                    self._compared(attribute, *_BOUNDS[name], [value], _ONE)
                    for name, value in condition.bounds
                ]
                return SQL("({})").format(SQL(" AND ").join(bounds))

    def _joined(self, word: str, parts: Sequence[Filter], of_none: str) -> Composable:
        if not parts:
            return SQL(of_none)
        return SQL("({})").format(SQL(word).join([self._translated(part) for part in parts]))

    def _compared(
        self, attribute: str, operator: str, prefix_operator: str, values: list[AttributeValue], form: str
    ) -> Composable:
        column, kind = self._table.column(attribute), self._table.spec.attributes[attribute]

        def part(left: Composable, operator: str, values: list[AttributeValue]) -> Composable:
            self.parameters.append(list(dict.fromkeys(values)) if form is _ANY else values[0])
            return SQL(form).format(left, SQL(operator), SQL(COLUMN_TYPES[kind]))

        if kind is AttributeType.FLOAT:
            values = [float(value) for value in values]
        if kind is not AttributeType.STRING or not self._by_prefix:
            return part(column, operator, values)
        # As the index has it. Cutting keeps the order of strings by code point, but for those it makes equal.
        prefix = SQL("left({}, {})").format(column, Literal(PREFIX_CHARACTERS))
        prefixes = [str(value)[:PREFIX_CHARACTERS] for value in values]
        return SQL("({} AND {})").format(
            part(prefix, prefix_operator, [*prefixes]), part(column, operator, values)
        )
