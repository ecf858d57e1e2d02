"""Values checked together: the good ones pass at once, a bad one has its own error and no one else's."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidImage, RequestError
from service.gallery.checking import checked_together
from service.retrieval.checks import check_queries, pack_items
from service.retrieval.index import CollectionSpec, Item, Metric

SPEC = CollectionSpec("c", 3, Metric.COSINE, "")
GOOD = np.array([1, 2, 3], np.float32)
Vector = NDArray[np.float32]


def query_results(*vectors: Vector | RequestError) -> list[Vector | RequestError]:
    return checked_together(partial(check_queries, SPEC), vectors)


def test_good_values_stay_themselves_and_are_checked_once() -> None:
    calls: list[Sequence[Vector]] = []
    values: list[Vector | RequestError] = [GOOD, GOOD * 2, InvalidImage("no picture")]
    results = checked_together(calls.append, values)
    assert all(result is value for result, value in zip(results, values, strict=True))
    assert [len(call) for call in calls] == [2]


def test_each_bad_query_has_its_own_error() -> None:
    """Of another dimension, not finite, zero; the error of an image stays where it is."""
    image_error = InvalidImage("no picture")
    results = query_results(
        GOOD,
        np.ones(2, np.float32),
        np.array([1, np.nan, 1], np.float32),
        image_error,
        np.zeros(3, np.float32),
    )
    assert results[0] is GOOD
    assert results[3] is image_error
    assert [str(result) for result in results if result is not GOOD] == [
        "the query has dimension 2; collection c has 3",
        "the query has nan at 1; expected finite float32",
        "no picture",
        "the query is zero; expected a direction, as the metric is the cosine",
    ]


def test_nothing_good_is_nothing_to_check() -> None:
    error = InvalidImage("no picture")
    assert query_results(error, error) == [error, error]
    assert query_results() == []


def test_a_bad_item_keeps_no_other_from_being_written() -> None:
    items = [Item("a", GOOD), Item("", GOOD), Item("a", GOOD, {"n": 1})]
    first, bad, last = checked_together(partial(pack_items, SPEC), items)
    assert (first, last) == (items[0], items[2])
    assert str(bad).startswith("an item's id is ''; expected 1 to 512 bytes")
