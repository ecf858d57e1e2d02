"""What counts as what, when it counts, and how exact the histogram is."""

import numpy as np
import pytest

from service.cli.bench.methods import Reply
from service.cli.bench.recorder import Latencies, Recorder, merged

OK = Reply("OK")


def test_percentiles_have_three_significant_figures() -> None:
    values_s = np.random.default_rng(0).lognormal(-5, 1.5, 20_000)
    latencies = Latencies()
    for value_s in values_s:
        latencies.record(float(value_s))
    percentiles = (50.0, 90.0, 99.0, 99.9, 100.0)
    found = latencies.percentiles_ms(*percentiles)
    ranks = [round(percentile / 100 * 20_000) - 1 for percentile in percentiles]
    expected = 1000 * np.sort(values_s)[ranks]
    np.testing.assert_allclose(np.array(found, float), expected, rtol=2e-3)
    assert latencies.mean_ms() == pytest.approx(1000 * values_s.mean(), rel=2e-3)
    assert latencies.count == 20_000


def test_what_is_outside_of_the_histogram_is_put_on_its_edge() -> None:
    latencies = Latencies()
    latencies.record(0.0)
    latencies.record(1e9)
    least, most = latencies.percentiles_ms(1.0, 100.0)
    assert least == pytest.approx(0.001)
    assert most == pytest.approx(3_600_000, rel=2e-3)


def test_nothing_recorded_has_no_percentiles() -> None:
    assert Latencies().percentiles_ms(50.0, 99.0) == [None, None]
    assert Latencies().mean_ms() is None


@pytest.mark.parametrize(
    ("reply", "latency_s", "kind"),
    [
        (OK, 0.1, "ok"),
        (OK, 0.25, "ok"),
        (OK, 0.251, "late"),
        (Reply("DEADLINE_EXCEEDED", "gone"), 0.25, "late"),
        (Reply("RESOURCE_EXHAUSTED", "the queue is full"), 0.001, "shed"),
        (Reply("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)"), 0.001, "errors"),
        (Reply("INVALID_ARGUMENT", "no image"), 0.001, "errors"),
        (Reply("UNAVAILABLE", "gone"), 0.001, "errors"),
    ],
)
def test_each_call_is_of_one_kind(reply: Reply, latency_s: float, kind: str) -> None:
    recorder = Recorder(1.0, 3.0, deadline_s=0.25)
    recorder.call(1.5, latency_s, reply)
    recording = recorder.recording
    assert recording.counts == {kind: 1}
    assert recording.offered == 1
    assert recording.answered == (reply.code == "OK")
    assert recording.latencies.count == recording.answered
    assert recording.accepted.count == (kind in ("ok", "late"))
    assert recording.refusals.count == (kind == "shed")
    assert dict(recording.errors) == ({reply.code: 1} if kind == "errors" else {})
    assert recording.examples == ({} if reply.code == "OK" else {reply.code: reply.detail})


def test_only_the_measured_time_counts() -> None:
    recorder = Recorder(1.0, 3.0, deadline_s=None)
    for moment_s in (0.0, 0.999, 1.0, 2.999, 3.0, 4.0):
        recorder.call(moment_s, 0.1, OK)
        recorder.not_sent(moment_s)
        recorder.send_lag(moment_s, 0.01)
    recording = recorder.recording
    assert recording.counts == {"ok": 2, "not_sent": 2}
    assert recording.send_lag.count == 2
    assert recording.duration_s == 2.0


def test_the_timeline_has_every_call_in_its_place() -> None:
    recorder = Recorder(1.0, 3.05, deadline_s=0.5)
    recorder.call(1.0, 0.1, OK)
    recorder.call(2.04, 0.6, OK)
    recorder.call(3.04, 0.1, OK)
    timeline = recorder.recording.timeline
    assert len(timeline) == 21
    assert sum(length for _, length, _ in timeline) == pytest.approx(2.05)
    assert [(round(at, 3), dict(counts)) for at, _, counts in timeline if counts] == [
        (0.0, {"ok": 1}),
        (1.0, {"late": 1}),
        (2.0, {"ok": 1}),
    ]


def test_rounds_are_added_one_after_the_other() -> None:
    parts = []
    for number in range(2):
        recorder = Recorder(0.5, 1.5, deadline_s=0.2)
        recorder.call(1.0, 0.1 * (number + 1), OK)
        recorder.call(1.0, 0.01, Reply("RESOURCE_EXHAUSTED", f"full {number}"))
        recorder.call(1.0, 0.01, Reply("INTERNAL", "broken"))
        recorder.recording.cpu_s, recorder.recording.wall_s = 0.5, 2.0
        parts.append(recorder.recording)
    whole = merged(parts)
    assert (whole.duration_s, whole.cpu_s, whole.wall_s) == (2.0, 1.0, 4.0)
    assert whole.counts == {"ok": 2, "shed": 2, "errors": 2}
    assert (whole.answered, whole.offered, whole.latencies.count) == (2, 6, 2)
    assert whole.errors == {"INTERNAL": 2}
    assert whole.examples["RESOURCE_EXHAUSTED"] == "full 0"
    assert [at for at, _, counts in whole.timeline if counts] == [0.5, 1.5]
