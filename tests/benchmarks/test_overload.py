"""How the overload benchmark's figures follow from what was recorded."""

import math

import pytest

from benchmarks.overload import Steps, figures_of
from service.cli.bench.methods import Reply
from service.cli.bench.recorder import Recorder, Recording

DEADLINE_MS = 250.0


def round_of(ok: int, shed: int, ok_ms: float = 100.0, shed_ms: float = 2.0) -> Recording:
    """A round of 10 s."""
    recorder = Recorder(0.0, 10.0, DEADLINE_MS / 1000)
    for _ in range(ok):
        recorder.call(1.0, ok_ms / 1000, Reply("OK"))
    for _ in range(shed):
        recorder.call(1.0, shed_ms / 1000, Reply("RESOURCE_EXHAUSTED", "full"))
    return recorder.recording


def found() -> dict[tuple[float, bool], Steps]:
    """Two rounds of each load that is compared, all alike."""
    mib = 2**20
    return {
        (share, never): Steps([round_of(100, 50), round_of(100, 50)], [100 * mib, 101 * mib])
        for share in (1.0, 1.5, 3.0)
        for never in (False, True)
    }


def values(steps: dict[tuple[float, bool], Steps]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures_of(steps, DEADLINE_MS)}


def test_loads_that_are_answered_alike_have_a_ratio_of_one() -> None:
    assert values(found()) == {
        "overload_goodput_150": 1.0,
        "overload_goodput_300": 1.0,
        "overload_goodput_150_never_cancel": 1.0,
        "overload_goodput_300_never_cancel": 1.0,
        "overload_answered_p99_ms": pytest.approx(100, rel=2e-3),
        "overload_refusals_p99_ms": pytest.approx(2, rel=2e-3),
        "overload_memory_growth_mib": 1.0,
    }
    assert all(figure.holds for figure in figures_of(found(), DEADLINE_MS))


def test_rounds_are_added_up() -> None:
    steps = found()
    steps[3.0, True].recordings = [round_of(40, 50), round_of(120, 50)]
    assert values(steps)["overload_goodput_300_never_cancel"] == pytest.approx(0.8)


def test_a_late_answer_is_no_goodput_and_the_worst_load_counts() -> None:
    steps = found()
    steps[1.5, True].recordings = [round_of(100, 50), round_of(100, 50, ok_ms=300.0, shed_ms=20.0)]
    named = values(steps)
    assert named["overload_goodput_150_never_cancel"] == 0.5
    assert named["overload_answered_p99_ms"] == pytest.approx(300, rel=2e-3)
    assert named["overload_refusals_p99_ms"] == pytest.approx(20, rel=2e-3)


def test_memory_counts_from_the_first_step_at_full_load() -> None:
    steps = found()
    steps[3.0, False].resident_bytes = [100 * 2**20, 200 * 2**20]
    assert values(steps)["overload_memory_growth_mib"] == 100.0


def test_what_did_not_happen_holds_no_bar() -> None:
    steps = found()
    for each in steps.values():
        each.recordings = [round_of(100, 0)]
    failed = [figure.name for figure in figures_of(steps, DEADLINE_MS) if not figure.holds]
    assert failed == ["overload_refusals_p99_ms"]  # nothing was refused at three times the capacity?
    for each in steps.values():
        each.recordings = [round_of(0, 100)]
    assert math.isnan(values(steps)["overload_goodput_150"])
    assert math.isnan(values(steps)["overload_answered_p99_ms"])
