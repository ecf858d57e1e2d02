"""When a request would be answered."""

import pytest

from service.forecast import Forecast
from service.latency import LatencyTable

WARM_S = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024}


def forecast(instances: int = 1) -> Forecast:
    return Forecast(LatencyTable(WARM_S, (1, 2, 4, 8)), 8, instances)


def busy(
    forecast: Forecast, batches: int, images: int, seconds: float, images_in: int = 100, since: float = 0.0
) -> None:
    """So many batches right after each other."""
    forecast._busy_since = since
    for number in range(1, batches + 1):
        forecast.ran(images, since + number * seconds, images_in)


def test_an_empty_house_takes_the_run_alone() -> None:
    assert forecast().wait_s(0, 1) == pytest.approx(0.010)
    assert forecast().wait_s(0, 8) == pytest.approx(0.024)
    assert forecast().backlog_s(0) == 0


def test_unmeasured_it_is_the_tables_pace_and_the_last_run() -> None:
    assert forecast().wait_s(16, 1) == pytest.approx(16 * 0.024 / 8 + 0.024)
    assert forecast().wait_s(1, 1) == pytest.approx(0.012 / 2 + 0.012)
    assert forecast().backlog_s(16) == pytest.approx(0.048)


def test_more_images_than_a_batch_need_several_runs() -> None:
    assert forecast().wait_s(0, 20) == pytest.approx(2 * 0.024 + 0.016)


def test_instances_share_the_work() -> None:
    assert forecast(2).backlog_s(16) == pytest.approx(0.024)


def test_it_learns_the_pace_at_which_images_really_leave() -> None:
    slow = forecast()
    busy(slow, 40, images=8, seconds=0.048)  # decoding takes the other half of the core, say
    assert slow.backlog_s(100) == pytest.approx(100 * 0.006, rel=0.01)
    busy(slow, 40, images=8, seconds=0.024)
    assert slow.backlog_s(100) == pytest.approx(100 * 0.003, rel=0.01)


def test_a_pace_asked_for_while_a_batch_ends_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the thread that serves the metrics."""
    slow, latency = forecast(), LatencyTable.warm_s

    def meanwhile(table: LatencyTable, batch_size: int) -> float:
        monkeypatch.undo()
        busy(slow, 40, images=8, seconds=0.048)
        return latency(table, batch_size)

    monkeypatch.setattr(LatencyTable, "warm_s", meanwhile)
    assert slow.backlog_s(100) == pytest.approx(100 * 0.003)  # its factor was looked up before
    assert slow.backlog_s(100) == pytest.approx(100 * 0.006, rel=0.01)


def test_what_is_learned_of_many_serves_where_few_were_never_measured() -> None:
    slow = forecast()
    busy(slow, 40, images=8, seconds=0.048)
    assert slow.backlog_s(2) == pytest.approx(2 * 0.012, rel=0.01)


def test_few_and_many_are_told_apart() -> None:
    both = forecast()
    busy(both, 40, images=2, seconds=0.024, images_in=1)
    busy(both, 40, images=8, seconds=0.024)
    assert both.backlog_s(3) == pytest.approx(3 * 0.012, rel=0.05)
    assert both.backlog_s(100) == pytest.approx(100 * 0.003, rel=0.05)


def test_idle_time_is_not_pace() -> None:
    idle = forecast()
    for number in range(50):
        idle.ran(1, 10.0 * number, 0)
    assert idle.backlog_s(1) == pytest.approx(0.010)


def test_one_who_left_during_the_run_does_not_make_idle_time_pace() -> None:
    idle = forecast()
    for number in range(50):
        idle.ran(1, 10.0 * number, -1)  # its permit is back before its run has ended
    assert idle.backlog_s(1) == pytest.approx(0.010)


def test_one_pause_of_the_machine_is_not_the_pace() -> None:
    paused = forecast()
    busy(paused, 40, images=8, seconds=0.024)
    paused.ran(8, 40 * 0.024 + 60.0, 100)
    assert paused.backlog_s(100) < 1.5 * 100 * 0.003


def test_a_pace_that_keeps_everybody_out_is_forgotten_by_serving_few() -> None:
    stuck = forecast()
    busy(stuck, 100, images=2, seconds=10.0, images_in=1)  # something really was that slow for long
    assert stuck.wait_s(1, 1) > 1
    for number in range(2000):  # now one is let in at a time, and nothing is measured
        stuck.ran(1, 5000 + 0.010 * number, 0)
    assert stuck.wait_s(1, 1) < 0.025
