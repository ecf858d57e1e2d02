"""Which checkpoint is chosen by what, and what the loop hands to each pass."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import Trained
from tests.training.pictures import write_class_folders
from training import train
from training.checkpoint import load_checkpoint
from training.config import read_config
from training.data import Batches
from training.engine import train_one_epoch
from training.metrics import Tally
from training.optim import cosine
from training.options import FitOptions
from training.run_folder import Summary
from training.train import fit


def options(data: Path, output: Path, **changes: Any) -> FitOptions:
    told: dict[str, Any] = {
        "arch": "resnet20-cifar", "input_size": 8, "resize_size": 10, "epochs": 3, "batch_size": 8,
        "workers": 0, "threads": 1, "learning_rate": 0.01,
    }  # fmt: skip
    return FitOptions(str(data), output=output, **told | changes)


def tally(accuracy: float) -> Tally:
    """Of ten images."""
    scores = Tally()
    right = round(10 * accuracy)
    scores.add(torch.eye(10), torch.tensor([i if i < right else (i + 1) % 10 for i in range(10)]), 1.0)
    assert scores.accuracy() == accuracy
    return scores


@dataclass(frozen=True)
class Evaluation:
    """What one call of `evaluate` was about.

    Attributes:
        part: the folder that its images lie in.
        weights: of the network at that moment.
        loss: the loss function's.
    """

    part: str
    weights: dict[str, Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for seed, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        write_class_folders(data / part, count, seed=100 * seed)
    return data


def script(monkeypatch: pytest.MonkeyPatch, data: Path, *accuracies: float) -> list[Evaluation]:
    """From now on `evaluate` gives these results, one a call; and what it was asked."""
    seen: list[Evaluation] = []

    def scripted(
        model: nn.Module, _normalization: nn.Module, batches: Batches, loss: Any, _device: torch.device
    ) -> Tally:
        (part,) = {Path(str(source)).relative_to(data).parts[0] for source in batches.split.sources}
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append(Evaluation(part, weights, loss))
        return tally(accuracies[len(seen) - 1])

    monkeypatch.setattr(train, "evaluate", scripted)
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
    assert Summary(**told) == summary
    assert (summary.best_epoch, summary.val_accuracy, summary.test_accuracy) == (best, val[best - 1], 0.3)


def test_labels_are_smoothed_in_training_only(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned_by: list[Callable[[Tensor, Tensor], Tensor]] = []

    def recording(model: Any, normalization: Any, batches: Any, loss: Any, *others: Any) -> Tally:
        learned_by.append(loss)
        return train_one_epoch(model, normalization, batches, loss, *others)

    monkeypatch.setattr(train, "train_one_epoch", recording)
    seen = script(monkeypatch, parts, 0.5, 0.5)
    fit(options(parts, tmp_path / "run", epochs=1, label_smoothing=0.3), lambda _line: None)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    surprise = -torch.log_softmax(logits, dim=1)[0]
    # Szegedy et al. 2015 (arXiv:1512.00567), section 7: 0.7 on the label, 0.3 over all classes.
    smoothed = float(0.7 * surprise[0] + 0.3 * surprise.mean())
    assert [float(loss(logits, labels)) for loss in learned_by] == pytest.approx([smoothed])
    plain = [float(evaluation.loss(logits, labels)) for evaluation in seen]
    assert plain == pytest.approx([float(surprise[0])] * 2)


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
