"""The model card: metadata that can be read, every section, and only what is known."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.training.noisy import NAMES, Noisy
from training.config import read_config
from training.errors import RunError
from training.report.card import escaped, model_card, report_on

# Of Mitchell et al. 2019, figure 1.
SECTIONS = [
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
    "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
]  # fmt: skip


def packaged(noisy: Noisy) -> str:
    return (noisy.package / "MODEL_CARD.md").read_text("utf-8")


def test_its_metadata_are_yaml_that_says_what_the_package_is(noisy: Noisy) -> None:
    _, head, _ = packaged(noisy).split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "cc0-1.0"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["tags"] == ["image-classification", "resnet20-cifar", "onnx"]
    (entry,) = metadata["model-index"]
    assert entry["name"] == "noisy"
    summary = json.loads((noisy.run / "summary.json").read_text())
    assert entry["results"][0]["metrics"][0] == {
        "type": "accuracy", "name": "accuracy@1", "value": summary["test_accuracy"],
    }  # fmt: skip


def test_it_has_the_sections_in_their_order(noisy: Noisy) -> None:
    found = re.findall(r"^## (.*)$", packaged(noisy), re.MULTILINE)
    assert found == [*SECTIONS, "How it was made"]


def test_it_tells_the_runs_facts(noisy: Noisy) -> None:
    card = packaged(noisy)
    temperature = json.loads((noisy.run / "temperature.json").read_text())["temperature"]
    assert f"a temperature of {temperature:.4g}, fitted on 27 val images" in card
    assert "their mean negative log-likelihood fell from " in card
    assert "calibration error fell" not in card
    assert "27 test images" in card
    assert "| model.onnx | fp32 | any | 27 | 100.00% | 1.000000 |" in card
    assert "fovea-train fit" in card.split("## How it was made")[1] or "```" in card
    for name in NAMES:
        assert escaped(name) in card
    assert not re.search(r"<b>", card)


def test_what_is_not_known_is_marked(noisy: Noisy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(noisy.run, run)
    (run / "summary.json").unlink()
    card = model_card(run, read_config(run))
    assert "no scores on test images" in card
    assert "| licence | [More Information Needed] |" in card
    assert "model-index" not in card
    assert "license:" not in card


def test_a_report_counts_only_for_the_weights_that_it_is_about(noisy: Noisy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(noisy.run, run)
    assert report_on(run, "abc") is None
    (run / "report").mkdir()
    report = {"target": {"weights": "abc"}, "metrics": {"top1_accuracy": 0.123}, "per_class": []}
    (run / "report" / "metrics.json").write_text(json.dumps(report))
    assert report_on(run, "def") is None
    found = report_on(run, "abc")
    assert "12.30%" in model_card(run, read_config(run), report=found)
    (run / "report" / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics\.json"):
        report_on(run, "abc")


def test_what_is_not_worth_telling_or_is_not_there_is_left_out(noisy: Noisy) -> None:
    report = {
        "metrics": {"top1_accuracy": 0.5, "top5_accuracy": 1.0},
        "per_class": [
            {"label": "a", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3, "predicted": 0},
            {"label": "b", "precision": 0.5, "recall": 1.0, "f1": 0.667, "support": 3, "predicted": 6},
        ],
    }
    card = model_card(noisy.run, read_config(noisy.run), report=report)
    # Of three classes the right one is always among five.
    assert "accuracy@1 |" in card
    assert "accuracy@5 |" not in card
    assert "| a | 3 | – | 0.00% | 0.00% |" in card
    assert "| b | 3 | 50.00% | 100.00% | 66.70% |" in card
    assert "accuracy@5" not in packaged(noisy).split("## Quantitative analyses")[1]


def test_ten_crops_are_not_what_is_served(noisy: Noisy, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    report: dict[str, object] = {"target": {"weights": "abc"}, "metrics": {}, "ten_crop": {"crops": 10}}
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(report))
    assert report_on(tmp_path, "abc") is None
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(report | {"ten_crop": None}))
    assert report_on(tmp_path, "abc") is not None


def test_the_licence_of_what_a_run_started_from_is_told(noisy: Noisy) -> None:
    config = read_config(noisy.run)

    def card(architecture: str, version: str = "", licence: str = "") -> str:
        model = replace(config.model, architecture=architecture, pretrained=True, pretrained_version=version)
        manifest = {"name": "a", "provenance": {"licence": licence}}
        return model_card(noisy.run, replace(config, model=model), manifest)

    lite = card("efficientnet-lite0")
    assert "| started from | Google's EfficientNet-lite weights, trained on ImageNet-1k" in lite
    assert "| licence | not stated; the weights that it started from: Apache-2.0 |" in lite
    assert "resnet50-0676ba61.pth" in card("resnet50", "v1").replace("\\", "")
    assert "| licence | CC0-1.0 |" in card("resnet50", licence="CC0-1.0")
    unknown = card("timm:never-there")
    assert "| started from | the weights published for timm:never-there |" in unknown
    assert "the weights that it started from: licence not known |" in unknown


def test_a_strangers_text_stays_text() -> None:
    assert escaped("a|b *c* `d` <script>\n# [x](y)") == r"a\|b \*c\* \`d\` &lt;script&gt; \# \[x\](y)"
