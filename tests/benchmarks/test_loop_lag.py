"""The percentile of a Prometheus histogram, as the served benchmark takes it."""

import math

import pytest

from benchmarks.serve_resnet50 import percentile

BUCKETS = {0.001: 90.0, 0.005: 99.0, 0.01: 99.0, math.inf: 100.0}


@pytest.mark.parametrize(
    ("share", "bound"), [(0.5, 0.001), (0.9, 0.001), (0.91, 0.005), (0.99, 0.005), (0.995, math.inf)]
)
def test_the_bound_that_the_share_does_not_exceed(share: float, bound: float) -> None:
    assert percentile(BUCKETS, share) == bound


def test_without_observations_it_is_no_number() -> None:
    assert math.isnan(percentile({}, 0.99))
    assert math.isnan(percentile({0.001: 0.0, math.inf: 0.0}, 0.99))
