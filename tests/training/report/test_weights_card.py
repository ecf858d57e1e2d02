"""The card of weights that others trained: what is known of them, and no number that wasn't measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from service.preprocess import Preprocessing
from tests.training.data_sources import image_rows
from tests.training.pictures import CLASSES
from tests.training.report.test_card import SECTIONS
from training.cli import main
from training.models import architecture
from training.report.weights_card import weights_card

SPEC = Preprocessing(resize_short_side=10, crop_height=8, crop_width=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A package of a file of weights, with int8 measured on labelled images; and what the command said."""
    work = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(architecture("resnet20-cifar").build(3).state_dict(), work / "net.pth")
    (work / "labels.txt").write_text("\n".join(CLASSES))
    image_rows(work, 8)
    told = CliRunner().invoke(
        main,
        [
            *("export", "--model-repository", str(work / "models"), "--arch", "resnet20-cifar"),
            *("--weights", str(work / "net.pth"), "--labels", str(work / "labels.txt")),
            *("--input-size", "8", "--resize-size", "10", "--precision", "int8"),
            *("--images", str(work / "images"), "--calibration", str(work / "images"), "--crops", "4"),
        ],
    )
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return work / "models" / "resnet20-cifar" / "1", told.output


def test_a_package_of_weights_has_a_card(exported: tuple[Path, str]) -> None:
    package, said = exported
    card = (package / "MODEL_CARD.md").read_text("utf-8")
    manifest = json.loads((package / "manifest.json").read_text())
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == SECTIONS
    metadata = yaml.safe_load(card.split("---\n", 2)[1])
    assert metadata == {
        "library_name": "fovea",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "resnet20-cifar", "onnx"],
    }
    assert f"| weights | {manifest['provenance']['recipe']} |".replace("_", r"\_") in card
    assert "| licence | not stated; that of the weights counts: weights net.pth" in card
    assert "10 (bilinear), cut from the centre" in card
    assert "no accuracy was measured on a test set" in card
    assert "fovea-train evaluate models/resnet20-cifar/1 --data" in card
    for one in manifest["variants"]:
        measured = one["agreement"]
        row = f"| {one['file']} | {one['precision']} | {one['provider']} | {measured['images']:,} | "
        row += f"{measured['top1_agreement']:.2%} | {measured['embedding_cosine']:.6f} |"
        if "top1_accuracy" in measured:
            row += f" {measured['top1_accuracy']:.2%} | {measured['reference_top1_accuracy']:.2%} |"
        elif len(manifest["variants"]) > 1:
            row += " – | – |"
        assert f"\n{row}\n" in card, said
    # Accuracies only where some were measured on labelled images.
    assert ("accuracy@1 | fp32's |" in card) == (len(manifest["variants"]) > 1)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "net", "version": "3", "architecture": "resnet50", "task": "multi_label",
        "labels": ["a_b", "c"],
        "provenance": {"created": "2026-01-01", "training_data": "", "recipe": "some file", "commit": "",
                       "licence": "MIT"},
        "variants": [{"file": "model.onnx", "precision": "fp32", "provider": "any",
                      "agreement": {"images": 24, "top1_agreement": 1.0, "max_relative_error": 0.0,
                                    "embedding_cosine": 1.0, "decision_agreement": 0.9876}}],
    } | changes  # fmt: skip


def test_of_several_labels_it_shows_how_many_are_the_same() -> None:
    card = weights_card(document(), SPEC)
    assert "| file | precision | for | images | same labels | embedding cosine |\n" in card
    assert "| model.onnx | fp32 | any | 24 | 98.76% | 1.000000 |\n\nSame labels: 2 × " in card
    assert "accuracy@1 | fp32's" not in card
    assert "| licence | MIT |" in card
    assert "## Training data\n\n[More Information Needed]\n" in card
    assert r"of a\_b, c" in card


def test_a_model_without_classes_has_one_too() -> None:
    agreement = {"images": 24, "max_relative_error": 0.0, "embedding_cosine": 1.0}
    variant = document()["variants"][0] | {"agreement": agreement}
    card = weights_card(document(task="embedding", labels=[], variants=[variant]), SPEC)
    assert "near for similar images" in card
    assert "| model.onnx | fp32 | any | 24 | – | 1.000000 |\n" in card
