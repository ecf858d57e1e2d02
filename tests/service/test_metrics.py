"""The histogram that takes many at once."""

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.metrics import CountedHistogram


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.15, 1.0, 7.0])
def test_many_equal_observations_count_as_each_of_them_would(amount: float) -> None:
    one, many = CollectorRegistry(), CollectorRegistry()
    single = Histogram("a", "b", ["c"], buckets=(0.1, 0.5, 1.0), registry=one).labels("d")
    counted = CountedHistogram("a", "b", ["c"], buckets=(0.1, 0.5, 1.0), registry=many).labels("d")
    for _ in range(4):
        single.observe(amount)
    counted.observe_many(amount, 3)
    counted.observe(amount)
    assert lines(many) == lines(one)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
