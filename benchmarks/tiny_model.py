"""A model that costs next to nothing: global average pool and ten classes, 32 × 32 × 3 in."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
CLASSES = 10


def write_tiny(repository: Path) -> Path:
    """Write the package `tiny`, version 1; returns its folder.

    Logits are float32 [batch, 10], the embedding is the mean of each channel, L2-normalised.
    """
    folder = repository / "tiny" / "1"
    folder.mkdir(parents=True)
    content = _graph().SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    agreement = {"images": 1, "top1_agreement": 1.0, "max_relative_error": 0.0, "embedding_cosine": 1.0}
    manifest = {
        "schema_version": 1,
        "name": "tiny",
        "version": "1",
        "architecture": "global-average-pool",
        "task": "single_label",
        "input": {
            "name": "image", "dtype": "uint8", "layout": "NHWC", "color_order": "RGB",
            "height": SIDE, "width": SIDE,
        },
        "preprocessing": {
            "resize_short_side": SIDE, "interpolation": "bilinear", "antialias": True,
            "normalization": {"in_graph": True, "mean": [0, 0, 0], "std": [1, 1, 1]},
        },
        "outputs": {
            "logits": {"name": "logits", "dimension": CLASSES},
            "embedding": {"name": "embedding", "dimension": 3, "l2_normalized": True},
        },
        "labels": [f"class {index}" for index in range(CLASSES)],
        "temperature": 1.0,
        "variants": [
            {"file": "model.onnx", "sha256": hashlib.sha256(content).hexdigest(), "precision": "fp32",
             "provider": "any", "agreement": agreement}
        ],
        "provenance": {
            "created": "2026-01-01T00:00:00Z", "training_data": "none", "recipe": "benchmarks/tiny_model.py",
            "commit": "", "licence": "Apache-2.0",
        },
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _graph() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32) / 64
    constants = {"weights": weights, "one": np.float32(1), "rows_columns": np.array([1, 2], np.int64)}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "rows_columns"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node("Add", ["means", "one"], ["shifted"]),  # a black image has a direction too
        helper.make_node("LpNormalization", ["shifted"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model
