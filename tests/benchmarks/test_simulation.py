"""The simulated policies do what they are said to do, on traces short enough to follow by hand."""

import pytest

from benchmarks.simulation.others import greedy, mosec_like, triton_like
from benchmarks.simulation.ours import fovea
from benchmarks.simulation.scenario import JITTER, QUEUE_CAPACITY, Machine, Request, bursty, poisson

POLICIES = [fovea, greedy, mosec_like, triton_like]
# One or two images in 10 ms; a window of 5 ms.
TWO = Machine("two", {1: 0.010, 2: 0.010}, (1, 2), (0.1, 0.1), max_queue_delay_ms=5.0, seconds=10.0)


def trace(*arrivals: float, patience_s: float = 0.1) -> list[Request]:
    return [Request(arrival, arrival + patience_s) for arrival in arrivals]


def about(seconds: float, runs: int = 1) -> object:
    """That long after so many runs of 10 ms, each up to a tenth longer."""
    slack = JITTER * 0.010 * runs / 2
    return pytest.approx(seconds + slack, abs=slack)


def test_greedy_starts_at_once_and_leaves_the_second_behind() -> None:
    assert greedy(TWO, trace(1.0, 1.004), 1).answered_s == [about(0.010), about(0.016, 2)]


def test_triton_waits_for_its_window_from_the_oldest_or_a_full_batch() -> None:
    assert triton_like(TWO, trace(1.0, 1.004), 1).answered_s == [about(0.014), about(0.010)]
    assert triton_like(TWO, trace(1.0, 1.006), 1).answered_s == [about(0.015), about(0.019, 2)]


def test_triton_does_not_wait_again_for_what_waited_during_a_run() -> None:
    third = triton_like(TWO, trace(1.0, 1.0, 1.001), 1).answered_s[2]
    assert third == about(0.019, 2)


def test_mosec_waits_for_its_window_from_when_a_worker_takes_the_first() -> None:
    third = mosec_like(TWO, trace(1.0, 1.0, 1.001), 1).answered_s[2]
    assert third == about(0.024, 2)


def test_only_mosec_runs_work_whose_caller_left() -> None:
    requests = [*trace(1.0, 1.0), *trace(1.001, 1.001, patience_s=0.005), *trace(1.002, 1.002)]
    wasted = {policy.__name__: policy(TWO, requests, 1).wasted for policy in POLICIES}
    assert wasted == {"fovea": 0, "greedy": 0, "mosec_like": 2, "triton_like": 0}


def test_an_answer_after_its_caller_left_counts_as_wasted() -> None:
    for policy in (greedy, mosec_like, triton_like):
        outcome = policy(TWO, trace(1.0, patience_s=0.007), 1)
        assert (outcome.answered_s, outcome.wasted) == ([], 1)


def test_the_others_refuse_where_the_queue_is_full() -> None:
    requests = trace(*[1.0] * (QUEUE_CAPACITY + 10), patience_s=99.0)
    for policy in (greedy, mosec_like, triton_like):
        outcome = policy(TWO, requests, 1)
        assert outcome.refused + len(outcome.answered_s) == len(requests)
        assert 0 < outcome.refused <= 10


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("arrive", [poisson, bursty])
def test_every_request_is_accounted_for_and_a_seed_says_it_all(policy, arrive) -> None:  # type: ignore[no-untyped-def] # of the lists above
    requests = arrive(TWO, 1.2, 3)
    assert requests == sorted(requests, key=lambda request: request.arrival)
    outcome = policy(TWO, requests, 3)
    assert outcome.offered == len(requests) > 500
    assert len(outcome.answered_s) + outcome.refused <= outcome.offered
    assert max(outcome.answered_s) <= 0.1 + 1e-9
    assert policy(TWO, requests, 3) == outcome


@pytest.mark.parametrize("arrive", [poisson, bursty])
def test_arrivals_come_at_the_rate_asked_for(arrive) -> None:  # type: ignore[no-untyped-def] # of the list above
    long = Machine("long", TWO.table_s, TWO.batch_sizes, (0.1, 0.1), max_queue_delay_ms=5.0, seconds=200.0)
    expected = 0.5 * long.capacity_per_s() * long.seconds
    assert len(arrive(long, 0.5, 1)) == pytest.approx(expected, rel=0.1)
