"""Filters as expressions. What they keep is in test_contract_options.py."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from service.retrieval.index import CollectionSpec, Metric
from service.retrieval.milvus.conditions import translated
from service.retrieval.milvus.table import Table, key_of
from service.retrieval.schema import AttributeType, AttributeValue

SCHEMA = {"label": AttributeType.STRING, "size": AttributeType.INT, "good": AttributeType.BOOL}
TABLE = Table("c", CollectionSpec("photos", 2, Metric.L2, "", SCHEMA), "flat")


@pytest.mark.parametrize(
    ("condition", "expression"),
    [
        (None, "sequence >= 0"),
        (And(()), "sequence >= 0"),
        (Or(()), "sequence < 0"),
        (In("label", ()), "sequence < 0"),
        (Exists("label"), '(a1 > "")'),
        (Equals("label", '"\\ \n\r'), '(a1 == "=\\"\\\\ \\n\\r")'),
        (In("good", (True, False, True)), '(a3 in ["1","0"])'),
        (Range("label", gte="a", lt="b"), '(a1 > "" and a1 >= "=a" and a1 < "=b")'),
        (Not(Equals("size", -(2**63))), '(not ((a2 == "0000000000000000")))'),
        (Or((Exists("size"), Exists("good"))), '((a2 > "") or (a3 > ""))'),
    ],
)
def test_a_filter_is_translated(condition: Filter | None, expression: str) -> None:
    assert translated(TABLE, condition) == expression


@given(
    st.one_of(
        st.tuples(st.just(AttributeType.INT), *[st.integers(-(2**63), 2**63 - 1)] * 2),
        st.tuples(st.just(AttributeType.FLOAT), *[st.floats(allow_nan=False, allow_infinity=False)] * 2),
        st.tuples(st.just(AttributeType.STRING), *[st.text(st.characters(exclude_categories=["Cs"]))] * 2),
        st.tuples(st.just(AttributeType.BOOL), *[st.booleans()] * 2),
    )
)
def test_keys_sort_as_values_do(drawn: tuple[AttributeType, AttributeValue, AttributeValue]) -> None:
    kind, one, other = drawn
    first, second = key_of(kind, one), key_of(kind, other)
    assert (first < second) == (one < other)  # type: ignore[operator] # of one type
    assert (first == second) == (one == other)
    assert first > ""
    assert (first.encode() < second.encode()) == (first < second)


def test_the_ends_of_floats_have_keys() -> None:
    values = [-sys.float_info.max, -1.0, -5e-324, 0.0, 5e-324, 1, 2**53, sys.float_info.max]
    keys = [key_of(AttributeType.FLOAT, value) for value in values]
    assert keys == sorted(set(keys))
    assert key_of(AttributeType.FLOAT, -0.0) == key_of(AttributeType.FLOAT, 0)
