"""Which checkpoint is chosen by what, and what the loop hands to each pass."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import Trained
from tests.training.pictures import write_class_folders
from training.checkpoint import load_checkpoint
from training.config import read_config
from training.data import Batches
from training.objective import CrossEntropy
from training.optim import cosine
from training.options import FitOptions
from training.train import fit


def options(data: Path, output: Path, **changes: Any) -> FitOptions:
    told: dict[str, Any] = {
        "arch": "resnet20-cifar", "input_size": 8, "resize_size": 10, "epochs": 3, "batch_size": 8,
        "workers": 0, "threads": 1, "learning_rate": 0.01,
    }  # fmt: skip
    return FitOptions(str(data), output=output, **told | changes)


@dataclass(frozen=True)
class Scored:
    """What one call of `Objective.validate` was about.

    Attributes:
        part: the folder that its images lie in.
        weights: of the network at that moment.
    """

    part: str
    weights: dict[str, Tensor]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for seed, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        write_class_folders(data / part, count, seed=100 * seed)
    return data


def script(monkeypatch: pytest.MonkeyPatch, data: Path, *accuracies: float) -> list[Scored]:
    """From now on `validate` gives these results, one a call; and what it was asked."""
    seen: list[Scored] = []

    def scripted(
        _self: CrossEntropy, model: nn.Module, _norm: nn.Module, batches: Batches, _device: torch.device
    ) -> dict[str, float]:
        (part,) = {Path(str(source)).relative_to(data).parts[0] for source in batches.split.sources}
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append(Scored(part, weights))
        return {"loss": 1.0, "accuracy": accuracies[len(seen) - 1]}

    monkeypatch.setattr(CrossEntropy, "validate", scripted)
    return seen


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("val", "best"), [((0.5, 0.9, 0.7), 2), ((0.9, 0.5, 0.7), 1), ((0.5, 0.7, 0.9), 3), ((0.8, 0.8, 0.1), 2)]
)
def test_the_best_epoch_by_val_is_scored_once_on_test(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: tuple[float, float, float], best: int
) -> None:
    seen = script(monkeypatch, parts, *val, 0.3)
    summary = fit(options(parts, tmp_path / "run"), lambda _line: None)
    assert [evaluation.part for evaluation in seen] == ["val", "val", "val", "test"]
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert (kept.epoch, kept.val_accuracy, last.epoch) == (best, val[best - 1], 3)
    # The weights that were scored at the end are that epoch's, and no other's.
    *epochs, scored = (evaluation.weights for evaluation in seen)
    assert [same(scored, weights) for weights in epochs] == [epoch == best for epoch in (1, 2, 3)]
    assert same(kept.model, scored)
    assert same(last.model, epochs[2])
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told == summary.document()
    assert (told["best_epoch"], told["val_accuracy"], told["test_accuracy"]) == (best, val[best - 1], 0.3)
    assert (told["selects_by"], told["test_images"], told["epochs"]) == ("accuracy", 12, 3)


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 2), (2, 5), (9, 6)])
def test_stops_when_val_has_not_become_better_for_so_long(
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    patience: int,
    epochs: int,
) -> None:
    # Equally good isn't better, but the later of the two is kept.
    script(monkeypatch, parts, *(0.5, 0.5, 0.7, 0.7, 0.6, 0.6)[:epochs], 0.3)
    summary = fit(options(parts, tmp_path / "run", epochs=6, patience=patience), lambda _line: None)
    assert summary.epochs == epochs
    assert summary.best_epoch == {2: 2, 5: 4, 6: 4}[epochs]
    said = "".join(capsys.readouterr())
    stopped = f"stopped: val hasn't become better for {patience} epoch{'s' * (patience != 1)}\n"
    assert (stopped in said) == (epochs < 6)


@pytest.mark.parametrize(
    ("unfreeze_at_epoch", "said"),
    [
        (0, "all stages up to stem keep their weights"),
        (2, "all stages up to stem keep their weights until epoch 2 begins"),
        (9, "all stages up to stem keep their weights to the end: they would learn from epoch 9 on"),
    ],
)
def test_says_what_does_not_learn(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreeze_at_epoch: int, said: str
) -> None:
    script(monkeypatch, parts, 0.5, 0.5, 0.3)
    lines: list[str] = []
    told = options(parts, tmp_path / "run", epochs=2, freeze="stem", unfreeze_at_epoch=unfreeze_at_epoch)
    fit(told, lines.append)
    assert said in "\n".join(lines).splitlines()


def test_the_averaged_weights_are_scored_and_kept(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = script(monkeypatch, parts, 0.5, 0.6, 0.3)
    fit(options(parts, tmp_path / "run", epochs=2, ema_decay=0.9), lambda _line: None)
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    raw = last.progress["engine"]["weights"]
    assert not same(last.model, raw)
    assert same(seen[1].weights, last.model)
    assert same(best.model, last.model)
    assert same(seen[2].weights, best.model)


def test_the_logged_learning_rates_follow_the_schedule(parts: Path, tmp_path: Path, trained: Trained) -> None:
    # 18 images in batches of 8 are 3 steps an epoch.
    fit(options(parts, tmp_path / "run", epochs=4, warmup_epochs=1), lambda _line: None)
    for run, steps in ((tmp_path / "run", 3), (trained.run, 6)):
        told = read_config(run).optimization
        share = cosine(told.epochs * steps, told.warmup_epochs * steps)
        logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["learning_rate"] for line in logged] == pytest.approx(
            [told.learning_rate * share(epoch * steps) for epoch in range(told.epochs)]
        )
        assert len(np.unique([line["learning_rate"] for line in logged])) == told.epochs
