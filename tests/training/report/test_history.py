"""What metrics.jsonl says, and what the curves show of it."""

import json
from pathlib import Path

import pytest

from training.errors import RunError
from training.report.figures import curves
from training.report.history import read_history


def write(run: Path, *lines: object) -> Path:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_train_and_val_by_epoch(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"epoch": 1, "train_loss": 2.0, "val_loss": 1.5, "train_accuracy": 0.4, "val_accuracy": 0.5},
        {"step": 7, "train_loss": 9.0},
        {"epoch": 2, "train_loss": 1.0, "val_loss": None, "train_accuracy": 0.8, "val_accuracy": 0.9},
    )
    history = read_history(run)
    assert history is not None
    assert [(one.name, one.epochs, one.values) for one in history.loss] == [
        ("train", (1, 2), (2.0, 1.0)), ("val", (1,), (1.5,)),
    ]  # fmt: skip
    assert [(one.name, one.values) for one in history.score] == [("train", (0.4, 0.8)), ("val", (0.5, 0.9))]
    assert history.score_name == "accuracy"
    picture = curves(history, best_epoch=2)
    assert picture.startswith(b"<?xml")
    assert b"<text" not in picture, "letters are shapes"
    assert curves(history, best_epoch=2) == picture, "the same run gives the same file"


def test_the_score_is_the_one_that_the_run_has(tmp_path: Path) -> None:
    history = read_history(write(tmp_path, {"epoch": 1, "train_loss": 1.0, "val_recall_at_1": 0.7}))
    assert history is not None
    assert (history.score_name, [one.name for one in history.score]) == ("recall at 1", ["val"])


def test_epochs_that_did_as_well_are_known(tmp_path: Path) -> None:
    scores = [0.5, 0.9, 0.7, 0.9]
    lines = [{"epoch": epoch, "val_accuracy": score} for epoch, score in enumerate(scores, 1)]
    history = read_history(write(tmp_path, *lines))
    assert history is not None
    assert history.as_good_as(4) == (2,)
    # Not of one that others beat, as the last may be, nor of one that has no score.
    assert history.as_good_as(3) == history.as_good_as(9) == ()


def test_a_run_without_an_epoch_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) is None
    assert read_history(write(tmp_path)) is None


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: not the metrics of a run"):
        read_history(tmp_path)
