"""L(batch): seeded at warm-up, updated by every run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.latency import LatencyTable

WARM_S = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.030}
SIZES = (1, 2, 4, 8)


def table() -> LatencyTable:
    return LatencyTable(WARM_S, SIZES)


def test_warm_up_seeds_it_and_a_batch_between_two_sizes_costs_as_the_larger() -> None:
    assert [table()(size) for size in range(1, 9)] == [0.010, 0.012, *[0.016] * 2, *[0.030] * 4]


def test_a_run_that_was_not_timed_lies_between_its_neighbours() -> None:
    dynamic = LatencyTable({1: 0.010, 4: 0.016, 8: 0.030}, range(1, 9))
    assert dynamic(2) == pytest.approx(0.012)
    assert dynamic(6) == pytest.approx(0.023)


def test_more_than_the_largest_takes_several_runs() -> None:
    assert table()(16) == pytest.approx(0.060)
    assert table()(17) == pytest.approx(0.070)
    assert table()(19) == pytest.approx(0.076)


def test_warm_up_times_that_fall_by_noise_are_made_to_rise() -> None:
    noisy = LatencyTable({1: 0.010, 2: 0.009, 4: 0.016}, (1, 2, 4))
    assert [noisy(size) for size in (1, 2, 4)] == [0.010, 0.010, 0.016]


def test_one_size_is_enough() -> None:
    only = LatencyTable({8: 0.030}, [8])
    assert only(1) == only(8) == 0.030


def test_it_follows_slower_runs_and_comes_back() -> None:
    latency = table()
    for _ in range(40):
        latency.observe(4, 0.032)
    assert latency(4) == pytest.approx(0.032)
    for _ in range(40):
        latency.observe(4, 0.016)
    assert latency(4) == pytest.approx(0.016)
    assert latency.warm_s(4) == 0.016


def test_it_is_a_high_quantile_not_the_mean() -> None:
    latency = table()
    for number in range(64):
        latency.observe(1, 0.020 if number % 5 == 0 else 0.010)  # a fifth of the runs is slow
    assert latency(1) == pytest.approx(0.020)


@pytest.mark.parametrize("runs_before", [0, 1, 2, 9, 31])
def test_one_outlier_is_not_believed(runs_before: int) -> None:
    latency = table()
    for _ in range(runs_before):
        latency.observe(1, 0.010)
    latency.observe(1, 5.0)
    assert latency(1) == pytest.approx(0.010)


def test_a_run_between_two_sizes_tells_of_the_larger() -> None:
    latency = table()
    for _ in range(10):
        latency.observe(3, 0.032)
    assert latency(4) == pytest.approx(0.032)
    assert latency(2) == 0.012


def test_a_size_that_looked_slow_and_is_avoided_gets_another_chance() -> None:
    latency = table()
    for _ in range(32):
        latency.observe(8, 3.0)  # a second-long pause of the machine, or several
    assert latency(8) == pytest.approx(3.0)
    for _ in range(16 * 32):
        latency.observe(4, 0.016)
    assert latency(8) < 3.1
    for _ in range(3):  # it is tried again, and its few memories are soon outvoted
        latency.observe(8, 0.030)
    for _ in range(16 * 4):
        latency.observe(4, 0.016)
    assert latency(8) == pytest.approx(0.030)


@given(
    runs=st.lists(st.tuples(st.integers(1, 8), st.floats(1e-6, 10)), max_size=100),
)
def test_it_stays_between_the_fastest_and_the_slowest_that_was_seen(runs: list[tuple[int, float]]) -> None:
    latency = table()
    factors = [1.0]
    for size, seconds in runs:
        factors.append(seconds / latency.warm_s(size))
        latency.observe(size, seconds)
    for size in range(1, 9):
        factor = latency(size) / latency.warm_s(size)
        assert min(factors) * 0.999 <= factor <= max(factors) * 1.001
