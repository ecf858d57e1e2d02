"""Filters as a caller writes them, and the messages they become."""

from typing import Any, cast

import fovea
import numpy as np
import pytest
from fovea import And, Equals, Exists, In, Not, Or, Range, attribute
from fovea._filters import filter_message
from fovea.v1 import retrieval_pb2 as pb


def test_comparisons_are_filters() -> None:
    year = attribute("year")
    assert (year == 1) == Equals("year", 1)
    assert (year != 1) == Not(Equals("year", 1))
    assert (year > 1) == Range("year", gt=1)
    assert (year >= 1) == Range("year", gte=1)
    assert (year < 1) == Range("year", lt=1)
    assert (year <= 1) == Range("year", lte=1)
    assert (2 < year) == Range("year", gt=2)  # noqa: SIM300 - the other way round is what is tested
    assert year.is_in(n for n in (1, 2)) == In("year", (1, 2))
    assert year.exists() == Exists("year")


def test_filters_combine_flat() -> None:
    a, b, c = (attribute(name) == 1 for name in "abc")
    assert a & b & c == And((a, b, c)) == a & (b & c)
    assert a | b | c == Or((a, b, c))
    assert a & (b | c) == And((a, Or((b, c))))
    assert ~(a & b) == Not(And((a, b)))


def test_a_filter_is_neither_true_nor_false() -> None:
    year = attribute("year")
    with pytest.raises(TypeError, match=r"combine filters with & \| ~"):
        bool(year == 1)
    with pytest.raises(TypeError, match="a range as"):
        1 < year < 5  # noqa: B015 - Python asks whether the first half is true
    with pytest.raises(TypeError, match="expected a filter; got bool"):
        (year == 1) & True  # type: ignore[operator] # the mistake that is tested
    with pytest.raises(TypeError, match="put 'cat' into a list"):
        attribute("label").is_in("cat")
    with pytest.raises(TypeError, match="unhashable"):
        hash(year)


def test_every_kind_becomes_its_message() -> None:
    def value(**kind: Any) -> pb.AttributeValue:
        return pb.AttributeValue(**kind)

    assert filter_message(None) is None
    cases: list[tuple[fovea.Filter, pb.Filter]] = [
        (Equals("a", True), pb.Filter(equals=pb.Equals(attribute="a", value=value(bool_value=True)))),
        (Equals("a", "b"), pb.Filter(equals=pb.Equals(attribute="a", value=value(string_value="b")))),
        (
            In("a", (1, 2.5)),
            pb.Filter(is_in=pb.In(attribute="a", values=[value(int_value=1), value(double_value=2.5)])),
        ),
        (
            Range("a", gt=0, gte=0.0, lt="", lte=np.int64(3)),  # type: ignore[arg-type] # NumPy's scalars are taken too
            pb.Filter(
                range=pb.Range(
                    attribute="a",
                    gt=value(int_value=0),
                    gte=value(double_value=0.0),
                    lt=value(string_value=""),
                    lte=value(int_value=3),
                )
            ),
        ),
        (Exists("a"), pb.Filter(exists=pb.Exists(attribute="a"))),
        (And(()), pb.Filter(all_of=pb.Filters())),
        (
            Or((Exists("a"), Not(Exists("b")))),
            pb.Filter(
                any_of=pb.Filters(
                    filters=[
                        pb.Filter(exists=pb.Exists(attribute="a")),
                        pb.Filter(negation=pb.Filter(exists=pb.Exists(attribute="b"))),
                    ]
                )
            ),
        ),
    ]
    for condition, message in cases:
        assert filter_message(condition) == message
        assert filter_message(condition) is not None


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        (Equals("a", 2**63), ValueError, "'a' is 9223372036854775808; expected an integer of 64 bits"),
        (
            attribute("a") == cast("Any", None),
            TypeError,
            "'a' is a NoneType; expected str, int, float or bool",
        ),
        (attribute("a").is_in(cast("Any", [[1]])), TypeError, "'a' is a list"),
        ("year > 3", TypeError, r"expected a filter, for instance fovea.attribute\('year'\) >= 2020"),
        (True, TypeError, "expected a filter"),
    ],
)
def test_what_is_no_filter_is_told(condition: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        filter_message(condition)
