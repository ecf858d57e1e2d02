"""fovea-train fit, whole, on small folders."""

import contextlib
import json
import os
import re
import resource
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from tests.training.conftest import TINY, Trained
from tests.training.pictures import CLASSES, picture, write_class_folders
from training import train
from training.checkpoint import load_checkpoint
from training.cli import main
from training.config import read_config, write_config
from training.data import Batches, open_dataset
from training.errors import DataError, RunError
from training.models import architecture
from training.normalization import Normalization
from training.transforms import EvalTransform
from training.weights import load_weights


def fit(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["fit", *TINY, *map(str, arguments)])


def epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_leaves_a_complete_run(trained: Trained) -> None:
    run = trained.run
    assert re.fullmatch(r"lights-resnet20-cifar-\d{8}-\d{6}", run.name)
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    (events,) = (name for name in files if name.startswith("events/events.out.tfevents."))
    assert files - {events} == {
        "config.toml",
        "metrics.jsonl",
        "splits.json",
        "summary.json",
        "temperature.json",
        "checkpoints/best.pt",
        "checkpoints/last.pt",
    }
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["data"]["labels"] == list(CLASSES)
    assert config["data"]["source"] == str(trained.data)
    assert config["model"]["architecture"] == "resnet20-cifar"
    assert config["preprocessing"] == {
        "resize_short_side": 10,
        "crop_height": 8,
        "crop_width": 8,
        "interpolation": "bilinear",
        "jpeg_scaled_decode": False,
    }
    assert config["normalization"]["mean"] == [0.485, 0.456, 0.406]
    augmentation = config["augmentation"]
    assert (augmentation.pop("crop"), augmentation.pop("mirror")) == ("padded", True)
    assert augmentation.pop("rand_augment_operations") == 2
    assert not any(augmentation.values())  # the rest is off
    assert config["optimization"]["epochs"] == 8
    assert len(epochs(run)) == 8


def test_says_what_it_reached_and_what_comes_next(trained: Trained) -> None:
    said, summary = trained.fit.output, json.loads((trained.run / "summary.json").read_text())
    assert re.search(r"^epoch 8/8  loss [\d.]+  train [\d.]+%  val [\d.]+%  \d+ images/s", said, re.MULTILINE)
    assert f"test accuracy {summary['test_accuracy']:.2%} on 9 images" in said
    assert f"best val accuracy {summary['val_accuracy']:.2%} (epoch {summary['best_epoch']} of 8)" in said
    assert f"next: fovea-train export --run runs/{trained.run.name}" in said


def test_only_an_epoch_that_rose_is_called_the_best_so_far(trained: Trained) -> None:
    said = [line for line in trained.fit.output.splitlines() if line.startswith("epoch ")]
    best = -1.0
    endings = []
    for epoch in epochs(trained.run):
        score = epoch["val_accuracy"]
        endings.append("best so far" if score > best else "as good as the best" if score == best else "/s")
        best = max(best, score)
    assert [line.endswith(ending) for line, ending in zip(said, endings, strict=True)] == [True] * 8
    assert {"best so far", "as good as the best"} <= set(endings)


def test_five_classes_can_not_be_missed_so_three_have_no_such_score(trained: Trained) -> None:
    for name in ("summary.json", "metrics.jsonl"):
        text = (trained.run / name).read_text()
        assert "val_accuracy" in text
        assert "top5" not in text


def test_the_best_checkpoint_is_the_one_of_the_best_val_accuracy(trained: Trained) -> None:
    best = load_checkpoint(trained.run / "checkpoints" / "best.pt")
    # Of equals the last.
    chosen = max(epochs(trained.run), key=lambda epoch: (epoch["val_accuracy"], epoch["epoch"]))
    assert (best.epoch, best.val_accuracy) == (chosen["epoch"], chosen["val_accuracy"])
    assert load_checkpoint(trained.run / "checkpoints" / "last.pt").epoch == 8


def test_the_reported_score_is_the_best_checkpoints_on_the_test_split(trained: Trained) -> None:
    config = read_config(trained.run)
    model = architecture(config.model.architecture).build(3)
    load_weights(model, load_checkpoint(trained.run / "checkpoints" / "best.pt").model, "best.pt")
    model.eval()
    normalization = Normalization(config.normalization.mean, config.normalization.std)
    test = open_dataset(str(trained.data)).test
    with torch.inference_mode():
        right = [
            int(model(normalization(pixels)).argmax()) == int(label)
            for pixels, label in Batches(test, EvalTransform(config.preprocessing), 1)
        ]
    summary = json.loads((trained.run / "summary.json").read_text())
    assert summary["test_images"] == len(right) == 9
    assert summary["test_accuracy"] == pytest.approx(np.mean(right))


def test_learns(trained: Trained) -> None:
    logged = epochs(trained.run)
    assert logged[-1]["train_loss"] < logged[0]["train_loss"]
    assert json.loads((trained.run / "summary.json").read_text())["test_accuracy"] >= 6 / 9


def test_neither_weights_nor_choice_depend_on_the_test_images(tmp_path: Path) -> None:
    runs = []
    for name, seed, count in (("one", 100, 2), ("two", 200, 4)):
        data = tmp_path / name
        write_class_folders(data / "train", 6)
        write_class_folders(data / "val", 3, seed=50)
        write_class_folders(data / "test", count, seed=seed)
        if name == "two":  # where even the classes are wrong
            (data / "test" / "red").rename(data / "test" / "swap")
            (data / "test" / "blue").rename(data / "test" / "red")
            (data / "test" / "swap").rename(data / "test" / "blue")
        result = fit("--data", data, "--output", tmp_path / f"run-{name}")
        assert result.exit_code == 0, result.output
        runs.append(tmp_path / f"run-{name}")
    one, two = (load_checkpoint(run / "checkpoints" / "best.pt") for run in runs)
    # The same seed, so the same run to the last bit; the reported scores differ.
    assert one.epoch == two.epoch
    assert all(torch.equal(value, two.model[name]) for name, value in one.model.items())
    scores = [json.loads((run / "summary.json").read_text())["test_images"] for run in runs]
    assert scores == [6, 12]


def test_starts_from_given_weights_and_adapts_the_head(tmp_path: Path, trained: Trained) -> None:
    data = tmp_path / "two"
    for name, label in (("cold", 0), ("warm", 2)):
        (data / name).mkdir(parents=True)
        for number in range(6):
            picture(label, number).save(data / name / f"{number}.png")
    weights = trained.run / "checkpoints" / "best.pt"
    result = fit("--data", data, "--init-weights", weights, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "the head for 2 classes starts at random" in result.output
    config = read_config(tmp_path / "run")
    assert config.model.init_weights == str(weights)


def test_a_loss_that_is_no_number_stops_the_run(trained: Trained, tmp_path: Path) -> None:
    result = fit("--data", trained.data, "--output", tmp_path / "run", "--learning-rate", "1e30")
    assert result.exit_code == 1
    assert re.search(r"the loss became (nan|inf) in epoch 1, in or before its batch \d+", result.output)
    assert "lower --learning-rate" in result.output


def test_broken_images_stop_the_run_unless_skipped(tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "lights", 6)
    (data / "red" / "broken.png").write_bytes(b"broken")
    result = fit("--data", data, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "red/broken.png: not an image" in result.output
    assert not (tmp_path / "run").exists()
    result = fit("--data", data, "--output", tmp_path / "run", "--epochs", 1, "--skip-broken")
    assert result.exit_code == 0, result.output
    assert "left out 1 broken image file:\n  red/broken.png: not an image" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet19"], "architecture 'resnet19' isn't known; supported: resnet18, "),
        (["--warmup-epochs", "8"], "--warmup-epochs is 8; expected less than --epochs = 8"),
        (["--input-size", "16"], "crop_height is 16; expected 1 to resize_short_side = 10"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    trained: Trained, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = fit("--data", trained.data, "--output", tmp_path / "run", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--std", "1", "expected three numbers"),
        ("--std", "1,2", "expected three numbers"),
        ("--std", "a,b,c", "expected three numbers"),
        ("--std", "0.5,nan,0.5", "expected finite numbers"),
        ("--std", "0.2,0,0.2", "expected numbers above 0"),
        ("--std", "58.395,57.12,57.375", "of pixels from 0 to 1; divide by 255"),
        ("--mean", "123.675,116.28,103.53", "of pixels from 0 to 1; divide by 255"),
        ("--mean", "-0.1,0.5,0.5", "expected numbers of pixels from 0 to 1"),
        ("--mean", "0.5,0.5,1.01", "of pixels from 0 to 1; divide by 255"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "export"])
def test_channels_that_cannot_be_used_are_refused(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    others = ["--data", str(trained.data), *TINY] if command == "fit" else []
    result = CliRunner().invoke(main, [command, *others, option, value])
    assert result.exit_code == 2
    said = re.sub(r"\W+", " ", result.output)
    assert re.sub(r"\W+", " ", option) in said
    assert re.sub(r"\W+", " ", message) in said


def test_channels_at_the_ends_of_their_ranges_are_taken(trained: Trained, tmp_path: Path) -> None:
    result = fit(
        *("--data", trained.data, "--output", tmp_path / "run", "--epochs", 1),
        *("--mean", "0,1,0.5", "--std", "1,0.5,0.0039"),
    )
    assert result.exit_code == 0, result.output
    assert "\n1 epoch in batches of 8 at " in result.output
    assert read_config(tmp_path / "run").normalization.std == (1, 0.5, 0.0039)


def test_a_folder_with_something_in_it_is_not_overwritten(trained: Trained) -> None:
    before = (trained.run / "config.toml").read_bytes()
    result = fit("--data", trained.data, "--output", trained.run)
    assert result.exit_code == 1
    assert "isn't empty" in result.output
    assert (trained.run / "config.toml").read_bytes() == before


@pytest.mark.parametrize("content", [None, "not toml =", "[run]\n"])
def test_a_broken_configuration_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    with pytest.raises(RunError, match=r"config\.toml"):
        read_config(tmp_path)


def test_the_configuration_comes_back_with_odd_names(tmp_path: Path, trained: Trained) -> None:
    config = read_config(trained.run)
    odd = ('"quoted"', "back\\slash", "tab\t", "ünïcödé ☃", "\x7f", "#no comment")
    changed = replace(config, data=replace(config.data, labels=odd))
    write_config(tmp_path, changed)
    assert read_config(tmp_path) == changed


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "lights", 6)
    (data / "red" / "phone.HEIC").write_bytes(b"another format")
    result = fit("--data", data, "--output", tmp_path / "run", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "1 file was passed over: 1 .heic\n" in result.output


def test_a_data_folder_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    parent = os.fsencode(tmp_path) + b"/caf\xe9"
    data = write_class_folders(Path(os.fsdecode(parent)) / "lights", 4)
    result = fit("--data", data, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.output.startswith("Error: --data is '")
    assert "caf\\udce9/lights'; expected UTF-8" in result.output
    # Where the path that was typed says nothing of it.
    with contextlib.chdir(data.parent), pytest.raises(DataError, match=r"caf\\udce9/lights'; expected UTF-8"):
        open_dataset("lights")
    assert not (tmp_path / "run").exists()


def test_a_command_line_in_another_encoding_is_recorded_by_its_escapes(
    tmp_path: Path, trained: Trained
) -> None:
    config = read_config(trained.run)
    command = os.fsdecode(b"fovea-train fit --output caf\xe9")
    write_config(tmp_path, replace(config, run=replace(config.run, command=command)))
    assert read_config(tmp_path).run.command == "fovea-train fit --output caf\\udce9"


def test_a_full_disk_stops_the_run_with_a_message(trained: Trained, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # enough for all but a checkpoint
    try:
        result = fit("--data", trained.data, "--output", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 1
    assert "checkpoints/best.pt: can't be written after epoch 1: File too large" in result.output
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_an_image_that_goes_away_meanwhile_stops_the_run_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_class_folders(tmp_path / "lights", 6)

    def delete_then_write(*arguments: Any) -> None:
        shutil.rmtree(data / "red")
        write_config(*arguments)

    monkeypatch.setattr(train, "write_config", delete_then_write)
    result = fit("--data", data, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert re.search(r"the run in .*run was stopped: .*red/\d+\.\w+: No such file", result.output)


def test_a_run_from_before_new_options_is_read_and_exported(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "old"
    shutil.copytree(trained.run, run)
    document = tomllib.loads((run / "config.toml").read_text())
    sections = {
        "run": ("command", "created", "commit", "seed", "threads", "workers", "device"),
        "data": ("source", "splits", "train_images", "val_images", "test_images", "skip_broken", "labels"),
        "model": ("architecture", "init_weights"),
        "preprocessing": tuple(document["preprocessing"]),
        "normalization": ("mean", "std"),
        "augmentation": ("crop", "mirror"),
        "optimization": (
            *("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "warmup_epochs"),
            "label_smoothing",
        ),
    }
    lines = []
    for section, names in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(document[section][name])}" for name in names]
    (run / "config.toml").write_text("\n".join(lines) + "\n")
    for name in ("best.pt", "last.pt"):
        saved = load_checkpoint(run / "checkpoints" / name)
        old = {"model": saved.model, "optimizer": {}, "scheduler": {}, "epoch": saved.epoch}
        scores = {"val_accuracy": saved.val_accuracy, "val_loss": saved.val_loss}
        torch.save(old | scores, run / "checkpoints" / name)
    config = read_config(run)
    assert (config.optimization.optimizer, config.embedding.loss) == ("sgd", "cross-entropy")
    assert load_checkpoint(run / "checkpoints" / "best.pt").val_accuracy == pytest.approx(
        load_checkpoint(trained.run / "checkpoints" / "best.pt").val_accuracy
    )
    exported = CliRunner().invoke(
        main, ["export", "--run", str(run), "--model-repository", str(tmp_path / "models")]
    )
    assert exported.exit_code == 0, exported.output
    resumed = CliRunner().invoke(main, ["fit", "--resume", str(run)])
    assert resumed.exit_code == 1
    assert "was made by a version whose runs can't be resumed" in resumed.output


def test_data_or_a_run_is_wanted() -> None:
    result = CliRunner().invoke(main, ["fit"])
    assert result.exit_code == 2
    assert "Missing option '--data' (or '--resume')" in result.output
