"""Precisions of a model whose classes may hold together are judged by what they say of each class."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.training.conftest import Trained
from tests.training.pictures import picture
from training import variants
from training.evaluation import EvaluationImages
from training.variants import make_variants


def without_any_label(source: Path, target: Path) -> None:
    """The same network with all logits lowered alike: the same class is the surest, and none is said."""
    model = onnx.load(source)
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "logits":
                node.output[index] = "own_logits"
    model.graph.initializer.append(numpy_helper.from_array(np.array(-100, np.float32), "far"))
    model.graph.node.append(helper.make_node("Add", ["own_logits", "far"], ["logits"]))
    onnx.save(model, target)


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    return tmp_path


@pytest.fixture
def images() -> EvaluationImages:
    pixels = [np.asarray(picture(seed % 3, seed, 8, 8)) for seed in range(30)]
    return EvaluationImages(np.stack(pixels))


def test_what_says_no_label_any_more_fails_though_the_surest_class_is_the_same(
    folder: Path, images: EvaluationImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "to_float16", without_any_label)
    (single,) = make_variants(folder, ["fp16"], None, images)
    assert single.agreement.top1_agreement == 1
    assert single.agreement.decision_agreement is None
    assert not single.failures
    (several,) = make_variants(folder, ["fp16"], None, images, multi_label=True)
    assert several.agreement.top1_agreement == 1
    assert several.agreement.decision_agreement == 0
    assert several.failures == ("same labels 0.00%, expected 99.9%",)
    assert "NOT published: same labels 0.00%" in str(several)
    assert not (folder / "model.fp16.onnx").exists()


def test_what_says_the_same_is_published_and_says_so(folder: Path, images: EvaluationImages) -> None:
    (variant,) = make_variants(folder, ["fp16"], None, images, multi_label=True)
    assert not variant.failures
    assert variant.agreement.decision_agreement is not None
    assert variant.agreement.decision_agreement >= 0.999
    assert variant.agreement.recorded()["decision_agreement"] == variant.agreement.decision_agreement
