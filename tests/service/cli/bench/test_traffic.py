"""Arrival processes: their rate, their shape, and that a seed decides them."""

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.bench.traffic import Traffic

BURSTY = Traffic("bursty", 200.0, burst_on_s=0.5, burst_off_s=1.5)
RAMP = Traffic("ramp", 50.0, ramp_to_per_s=250.0, ramp_from_s=10.0, ramp_s=100.0)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert list(Traffic("constant", 4.0).times(1.5, seed=3)) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_poisson_gaps_are_exponential() -> None:
    times = np.array(list(Traffic("poisson", 100.0).times(200.0, seed=1)))
    gaps = np.diff(times)
    # 20,000 arrivals: the standard error of the mean is 0.7%, that of the spread about 1%.
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)
    assert (gaps > 0.01).mean() == pytest.approx(np.exp(-1), rel=0.05)


@pytest.mark.parametrize("traffic", [Traffic("poisson", 300.0), BURSTY, RAMP])
def test_a_seed_decides_all(traffic: Traffic) -> None:
    first = list(traffic.times(20.0, seed=7))
    assert first == list(traffic.times(20.0, seed=7))
    assert first != list(traffic.times(20.0, seed=8))


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short = list(BURSTY.times(5.0, seed=2))
    assert list(islice(BURSTY.times(50.0, seed=2), len(short))) == short


def test_bursts_are_on_and_off() -> None:
    times = np.array(list(BURSTY.times(400.0, seed=5)))
    phase = times % 2.0
    assert phase.max() < 0.5
    assert len(times) == pytest.approx(200 * 400, rel=0.02)
    assert BURSTY.burst_rate_per_s == 800.0
    per_cycle = np.bincount((times // 2.0).astype(int), minlength=200)
    assert per_cycle.min() > 300  # each of the 200 bursts has about 400


def test_a_ramp_goes_straight_from_one_rate_to_the_other() -> None:
    times = np.array(list(RAMP.times(150.0, seed=4)))
    counts, _ = np.histogram(times, bins=np.arange(0, 151, 10))
    expected = [500, *(10 * (50 + 2 * (5 + 10 * i)) for i in range(10)), *[2500] * 4]
    np.testing.assert_allclose(counts, expected, rtol=0.2)
    assert counts.sum() == pytest.approx(sum(expected), rel=0.03)


def test_a_ramp_can_go_down() -> None:
    down = Traffic("ramp", 400.0, ramp_to_per_s=100.0, ramp_s=10.0)
    times = np.array(list(down.times(10.0, seed=1)))
    assert len(times) == pytest.approx(2500, rel=0.08)
    assert (times < 5).sum() > 1.5 * (times >= 5).sum()


@given(
    kind=st.sampled_from(["poisson", "constant", "bursty", "ramp"]),
    rate=st.floats(0.1, 2000),
    on_s=st.floats(0.01, 5),
    off_s=st.floats(0, 5),
    ramp_to=st.floats(0.1, 2000),
    from_s=st.floats(0, 2),
    seed=st.integers(0, 2**32),
)
def test_times_ascend_and_end(
    kind: str, rate: float, on_s: float, off_s: float, ramp_to: float, from_s: float, seed: int
) -> None:
    traffic = Traffic(kind, rate, on_s, off_s, ramp_to, from_s, ramp_s=1.0)
    times = list(islice(traffic.times(2.0, seed), 5000))
    assert all(first <= second for first, second in pairwise(times))
    assert all(0 <= time_s < 2.0 for time_s in times)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"kind": "random", "rate_per_s": 1.0}, "expected one of poisson, constant, bursty, ramp"),
        ({"kind": "poisson", "rate_per_s": 0.0}, "the rate is 0.0 calls per second"),
        ({"kind": "poisson", "rate_per_s": float("nan")}, "the rate is nan"),
        ({"kind": "bursty", "rate_per_s": 1.0, "burst_on_s": 0.0}, "bursts are 0.0 s on"),
        ({"kind": "ramp", "rate_per_s": 1.0, "ramp_s": 1.0}, "the ramp goes to 0.0"),
    ],
)
def test_what_makes_no_traffic_is_said(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Traffic(**values)  # type: ignore[arg-type] # a table of mixed fields
