"""The benchmarks of transfer and retrieval run through, on pictures that are made here."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import metric_learning, probe
from tests.training.pictures import picture

NAMES = ("amber", "blue", "cyan", "grey")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for part, count in (("train", 12), ("test", 6)):
        for label, name in enumerate(NAMES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 10_000 * (part == "test") + 100 * label + number
                picture(label % 3, seed, 16, 16).save(folder / f"{number}.png")
    return root


@pytest.fixture
def run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """A benchmark's quick run in this process → what it printed."""

    def running(main: Callable[[], None], *options: str) -> list[str]:
        told = ["benchmark", "--quick", "--data", str(data), "--work", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", told)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out.splitlines()

    return running


def test_the_probe_is_measured_against_fine_tuning(run: Callable[..., list[str]]) -> None:
    said = run(probe.main)
    for start in ("probe, nothing kept: ", "probe, features kept: ", "fine-tuning, 1 epochs: "):
        (line,) = (line for line in said if line.startswith(start))
        assert line.endswith("on 24 pictures")
    assert sum(line.startswith("smoke run: ") for line in said) == 3


def test_each_loss_is_measured_on_classes_that_it_never_saw(run: Callable[..., list[str]]) -> None:
    said = run(metric_learning.main, "--holdout-classes", "2", "--projection", "8", "--whiten", "3")
    for loss in ("cross-entropy", "arcface", "proxy-anchor"):
        for start in (f"{loss}: Recall@1 ", f"{loss}, whitened: Recall@1 "):
            (line,) = (line for line in said if line.startswith(start))
            # Half of the 2 × 18 pictures of the classes held out.
            assert line.endswith("on 18 queries")
    assert sum(line.startswith("smoke run: ") for line in said) == 3
