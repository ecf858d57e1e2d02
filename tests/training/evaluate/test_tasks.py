"""Runs of several labels an image, and runs that are judged by retrieval: scored, reported, exported."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from service.manifest import read_manifest
from tests.training.data_sources import write_csv
from tests.training.noisy import NAMES, write_noisy_folders
from training.cli import main
from training.evaluate.data import run_pictures
from training.evaluate.evaluation import evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.run import RunTarget

TINY = (
    *("--arch", "resnet20-cifar", "--input-size", "8", "--resize-size", "10", "--epochs", "1"),
    *("--batch-size", "16", "--workers", "0", "--threads", "1"),
)


def told(*arguments: object) -> str:
    said = CliRunner().invoke(main, [str(one) for one in arguments])
    assert said.exit_code == 0, (said.output, said.exception)
    return said.output


def reported(run: Path) -> tuple[dict[str, float], str]:
    """Report and export; the numbers, which are those of the package too, and the package's card."""
    told("report", run, "--device", "cpu")
    assert (run / "report" / "report.html").exists()
    with contextlib.chdir(run.parent):
        told("export", "--run", run, "--name", "made", "--licence", "Apache-2.0")
    package = run.parent / "models" / "made" / "1"
    pictures = run_pictures(run)
    own = evaluate(RunTarget(run, device="cpu"), pictures)
    packaged = evaluate(PackageTarget(package), pictures)
    assert own.numbers.keys() == packaged.numbers.keys()
    for name, value in own.numbers.items():
        assert packaged.numbers[name] == pytest.approx(value, rel=1e-4), name
    summary = json.loads((run / "summary.json").read_text())
    for name in ("mean_average_precision", "recall_at_1", "map_at_r"):
        if name in own.numbers:
            assert own.numbers[name] == pytest.approx(summary[f"test_{name}"], abs=1e-6)
    return own.numbers, (package / "MODEL_CARD.md").read_text("utf-8")


def test_several_labels_an_image(tmp_path: Path) -> None:
    data = write_noisy_folders(tmp_path / "data", 40)
    also = {NAMES[0]: "cold", NAMES[1]: "cold", NAMES[2]: "warm"}
    rows = [
        [path.relative_to(tmp_path).as_posix(), f"{path.parent.name};{also[path.parent.name]}"]
        for path in sorted(data.rglob("*.png"))
    ]
    table = write_csv(tmp_path / "data.csv", ["path", "labels"], rows)
    told("fit", "--data", table, *TINY, "--output", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "temperature.json").read_text())
    numbers, card = reported(tmp_path / "run")
    assert numbers["nll_before_temperature"] != numbers["nll"] or kept["reason"]
    assert "top1_accuracy" not in numbers
    assert "any number of them" in card
    assert f"| mean average precision | {numbers['mean_average_precision']:.2%} |" in card
    manifest = json.loads((tmp_path / "models" / "made" / "1" / "manifest.json").read_text())
    assert (manifest["task"], manifest["temperature"]) == ("multi_label", kept["temperature"])
    (fp32,) = read_manifest(tmp_path / "models" / "made" / "1").variants
    assert fp32.agreement is not None
    assert fp32.agreement.decision_agreement == 1
    assert "| same labels |" in card


def test_classes_that_were_held_out(tmp_path: Path) -> None:
    data = write_noisy_folders(tmp_path / "data", 20)
    (data / "more").mkdir()
    for path in (data / NAMES[0]).glob("*.png"):
        (data / "more" / path.name).write_bytes(path.read_bytes() + b" ")
    run = tmp_path / "run"
    told("fit", "--data", data, *TINY, "--loss", "arcface", "--holdout-classes", 2, "--output", run)
    assert not (run / "temperature.json").exists()
    numbers, card = reported(run)
    assert numbers.keys() == {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"}
    metadata = yaml.safe_load(card.split("---\n", 2)[1])
    assert metadata["pipeline_tag"] == "image-feature-extraction"
    assert "near for similar images" in card
    assert "naming what an image shows" in card
    shown = (run / "report" / "report.html").read_text("utf-8")
    assert "Nearest neighbours" in shown
    assert "Calibration" not in shown
