"""Progress where there is no terminal."""

import time

import pytest

from training import progress


def test_elsewhere_than_on_a_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.Bar(1000, "training") as bar:
        for _ in range(7):
            now += 10
            bar.advance(100)
        bar.describe("epoch 2/2")
        bar.line("epoch 1/2 is over")
        now += 20
        bar.advance(100)
    assert capsys.readouterr().out.splitlines() == [
        "training: 300 of 1,000 images, 10 images/s, 70 s left",
        "training: 600 of 1,000 images, 10 images/s, 40 s left",
        "epoch 1/2 is over",
        "epoch 2/2: 800 of 1,000 images, 9 images/s, 22 s left",
    ]


def test_track_passes_everything_on() -> None:
    assert list(progress.track(iter("abc"), 3, "checking")) == ["a", "b", "c"]
