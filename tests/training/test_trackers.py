"""What a run tells TensorBoard, and what is said where a tracker isn't there."""

import importlib.util
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import Trained
from training.config import read_config
from training.errors import SettingError
from training.trackers import Trackers, check_trackers


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value, of events/."""
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_each_epochs_scores(trained: Trained) -> None:
    found = scalars(trained.run)
    lines = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    for tag, name in (
        ("train/loss", "train_loss"),
        ("val/accuracy", "val_accuracy"),
        ("val/loss", "val_loss"),
        ("learning_rate", "learning_rate"),
    ):
        assert list(found[tag]) == [line["step"] for line in lines]
        assert list(found[tag].values()) == pytest.approx([line[name] for line in lines], rel=1e-5)


def test_what_a_killed_process_told_beyond_the_checkpoint_is_forgotten(
    trained: Trained, tmp_path: Path
) -> None:
    config = read_config(trained.run)
    with Trackers(["tensorboard"], tmp_path, config, 0) as killed:
        for step in range(1, 7):
            killed.log({"step/loss": 100.0 + step}, step)
    with Trackers(["tensorboard"], tmp_path, config, 3) as resumed:
        for step in range(4, 6):
            resumed.log({"step/loss": float(step)}, step)
    assert scalars(tmp_path)["step/loss"] == {1: 101, 2: 102, 3: 103, 4: 4, 5: 5}


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_a_tracker_that_is_not_installed_names_its_extra() -> None:
    with pytest.raises(
        SettingError, match=r"mlflow, which isn't installed: pip install 'fovea-serving\[mlflow\]'"
    ):
        check_trackers(["tensorboard", "mlflow"])


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow isn't installed")
def test_mlflow_keeps_one_run_for_a_run_that_goes_on(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    config = read_config(trained.run)
    for steps in ((1, 2), (3,)):
        with Trackers(["mlflow"], tmp_path, config, steps[0] - 1) as trackers:
            for step in steps:
                trackers.log({"train/loss": 1 / step}, step)
    (kept,) = mlflow.search_runs(output_format="list")
    assert kept.data.params["optimization.epochs"] == "8"
    history = mlflow.MlflowClient().get_metric_history(kept.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(SettingError, match="names 'wandb'; expected some of tensorboard, mlflow, or none"):
        check_trackers(["wandb"])
