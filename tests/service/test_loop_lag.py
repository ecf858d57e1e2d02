"""A stalled loop shows, by how long it stood still; a smooth one shows nothing."""

import asyncio
import time
from itertools import pairwise

import pytest

from service.loop_lag import TICK_S, watch_loop_lag
from service.metrics import Metrics
from tests import fake_clock


def lags(stalls: dict[float, float], seconds: float, tick_s: float = 0.02) -> list[float]:
    """What is observed on a fake clock where the loop stands still: from when, how long."""
    seen: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, fake_clock.FakeClockLoop)
        for start, length in stalls.items():
            loop.call_at(start, stall, loop, length)
        watch = asyncio.create_task(watch_loop_lag(seen.append, tick_s))
        await asyncio.sleep(seconds)
        watch.cancel()
        await asyncio.wait([watch])
        assert watch.cancelled()

    def stall(loop: fake_clock.FakeClockLoop, length: float) -> None:
        loop._jumping.now += length

    fake_clock.run(main())
    return seen


def test_a_smooth_loop_has_no_lag() -> None:
    seen = lags({}, 1.01)
    assert len(seen) == 50
    assert max(seen) == pytest.approx(0, abs=1e-6)


def test_a_short_stall_is_seen_as_what_is_left_of_it_at_the_tick() -> None:
    # From 0.035 to 0.043: the tick of 0.04 is 3 ms late.
    seen = lags({0.035: 0.008}, 0.1)
    assert max(seen) == pytest.approx(0.003)
    assert sum(lag > 1e-6 for lag in seen) == 1


def test_a_stall_between_ticks_is_not_seen() -> None:
    assert max(lags({0.042: 0.01}, 0.1)) == pytest.approx(0, abs=1e-6)


def test_a_long_stall_counts_by_its_length() -> None:
    # From 0.03 to 0.135: the ticks of 0.04, 0.06, 0.08, 0.1 and 0.12 are all late.
    late = [lag for lag in lags({0.03: 0.105}, 0.3) if lag > 1e-6]
    assert late == pytest.approx([0.095, 0.075, 0.055, 0.035, 0.015])


def test_a_machine_that_slept_is_not_counted_for_ever() -> None:
    assert len(lags({0.03: 86_400.0}, 86_400.1)) < 1_100


async def test_a_blocked_loop_is_seen_in_the_metric() -> None:
    metrics = Metrics()
    watch = asyncio.create_task(watch_loop_lag(metrics.event_loop_lag.observe))
    await asyncio.sleep(0)
    time.sleep(5 * TICK_S)  # noqa: ASYNC251 - it is the loop that is to stand still
    await asyncio.sleep(0.001)
    watch.cancel()
    sample = metrics.registry.get_sample_value
    seen = sample("fovea_event_loop_lag_seconds_count")
    assert seen is not None
    assert seen >= 4  # four ticks late by 4, 3, 2 and 1 of them, and perhaps one that is hardly late
    assert (sample("fovea_event_loop_lag_seconds_sum") or 0) >= 0.99 * 10 * TICK_S
    below_100_ms = sample("fovea_event_loop_lag_seconds_bucket", {"le": "0.1"})
    assert below_100_ms is not None
    assert below_100_ms <= seen - 2


def test_the_buckets_resolve_half_a_millisecond_to_fifty() -> None:
    text = [
        sample.labels["le"]
        for metric in Metrics().registry.collect()
        if metric.name == "fovea_event_loop_lag_seconds"
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    ]
    within = [float(bound) for bound in text if 0.0005 <= float(bound) <= 0.05]
    assert min(within) == 0.0005
    assert max(within) == 0.05
    assert 0.005 in within
    assert all(high / low <= 2 for low, high in pairwise(within))
