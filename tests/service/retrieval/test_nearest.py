"""Nearest first, and of equally near items those written first."""

from typing import NamedTuple

from service.retrieval.nearest import nearest_of


class One(NamedTuple):
    sequence: int
    score: float


def test_the_order_of_what_was_found() -> None:
    found = [One(3, 0.5), One(2, 0.5), One(9, 0.75), One(1, -1.0), One(4, 0.5)]
    assert [one.sequence for one in nearest_of(iter(found), 4)] == [9, 2, 3, 4]
    assert [one.sequence for one in nearest_of(found, 10)] == [9, 2, 3, 4, 1]
    assert nearest_of([], 3) == []
