"""A small real convolutional network as a package with variants, made and measured by training's export."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.packages import LABELS, SIZE, classifier, manifest_document
from training.evaluation import EvaluationImages
from training.variants import KINDS, Variant, make_variants

WIDTH = 16


def colorful(count: int, seed: int) -> NDArray[np.uint8]:
    """Noise in which one channel in turn is bright, its label: uint8 [count, 8, 8, 3]."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 150, (count, SIZE, SIZE, 3), dtype=np.uint8)
    images[np.arange(count), :, :, np.arange(count) % 3] += 100
    return images


def write_precisions(
    repository: Path, precisions: Sequence[str] = ("int8",), name: str = "precise"
) -> tuple[Path, list[Variant]]:
    """A package of fp32 and the precisions asked for (names of `training.variants.KINDS`).

    Returns:
        Its folder, and the variants; one that fails its gate, as none should, isn't in the package.
    """
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(_graph(), folder / "model.onnx")
    evaluation = EvaluationImages(colorful(300, 1), np.arange(300) % 3)
    variants = make_variants(
        folder, [kind for kind in KINDS if kind in precisions], colorful(64, 2), evaluation
    )
    document = manifest_document(name, "1", _sha256(folder / "model.onnx"))
    document["outputs"]["embedding"]["dimension"] = WIDTH
    document["variants"] += [
        {
            "file": made.kind.file,
            "sha256": _sha256(folder / made.kind.file),
            "precision": made.kind.precision,
            "provider": made.kind.provider,
            "agreement": made.agreement.recorded(),
        }
        for made in variants
        if not made.failures
    ]
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return folder, variants


def _graph() -> onnx.ModelProto:
    """Two 3x3 convolutions, the mean, a head that reads the three channels that carry the colours through."""
    draw = np.random.default_rng(0)
    first = draw.normal(0, 0.2, (WIDTH, 3, 3, 3)).astype(np.float32)
    second = draw.normal(0, 0.1, (WIDTH, WIDTH, 3, 3)).astype(np.float32)
    for channel in range(3):
        first[channel] = second[channel] = 0
        first[channel, channel, 1, 1] = second[channel, channel, 1, 1] = 1
    weights = {
        "scale": np.full((3, 1, 1), 1 / 255, np.float32),
        "first": first,
        "second": second,
        "head": np.eye(WIDTH, len(LABELS), dtype=np.float32) * 16,
        "bias": np.zeros(len(LABELS), np.float32),
        "axes": np.array([2, 3], np.int64),
        "channels": np.array([1], np.int64),
        "least": np.float32(1e-12),
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"], "scale"),
        helper.make_node("Conv", ["scaled", "first"], ["conv1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("Conv", ["relu1", "second"], ["conv2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv2"], ["relu2"], "relu2"),
        helper.make_node("ReduceMean", ["relu2", "axes"], ["pooled"], "pool", keepdims=0),
        helper.make_node("Gemm", ["pooled", "head", "bias"], ["logits"], "head"),
        helper.make_node("ReduceL2", ["pooled", "channels"], ["length"], "length", keepdims=1),
        helper.make_node("Clip", ["length", "least"], ["divisor"], "divisor"),
        helper.make_node("Div", ["pooled", "divisor"], ["embedding"], "embedding"),
    ]
    return classifier("precise", nodes, weights, WIDTH)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
