"""Small real model packages, built node by node, whose right answers a test can work out by itself."""

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.preprocess import Preprocessing

SIZE = 8
LABELS = ("red", "green", "blue")
EMBEDDING_DIMENSION = SIZE * 3


def colors_logits(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the colors model says of one preprocessed image: the mean of each channel over 16."""
    means: NDArray[np.float32] = image.mean(axis=(0, 1), dtype=np.float32)
    return means / np.float32(16)


def colors_embedding(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Its embedding: the mean of each column and channel plus one, L2-normalised, float32 [24]."""
    columns: NDArray[np.float32] = image.mean(axis=0, dtype=np.float32).reshape(-1) + np.float32(1)
    return columns / np.linalg.norm(columns)


def write_colors(repository: Path, name: str = "colors", version: str = "1", **changes: Any) -> Path:
    """A model that names the strongest colour of an 8 × 8 image; returns the package's folder."""
    return _write(repository, name, version, _colors_graph(), changes)


def write_embedder(repository: Path, name: str = "embedder") -> Path:
    """The colors model without its classes: embeddings only."""
    model = _colors_graph()
    (logits,) = [output for output in model.graph.output if output.name == "logits"]
    model.graph.output.remove(logits)
    content = model.SerializeToString()
    document = manifest_document(name, "1", hashlib.sha256(content).hexdigest())
    agreement = {"images": 1, "max_relative_error": 0.0, "embedding_cosine": 1.0}
    changes = {
        "task": "embedding",
        "outputs": {"embedding": document["outputs"]["embedding"]},
        "labels": [],
        "variants": [document["variants"][0] | {"agreement": agreement}],
    }
    return _write_content(repository, name, "1", content, changes)


def write_slow(repository: Path, name: str = "slow", *, side: int = 1600, products: int = 4) -> Path:
    """The colors model with matrix products in front, so that each run takes a good part of a second."""
    return _write(repository, name, "1", _colors_graph(side=side, products=products), {})


def write_not_finite(repository: Path, name: str = "broken") -> Path:
    """A model whose logits are NaN for a black image, and right for others."""
    return _write(repository, name, "1", _colors_graph(nan_when_black=True), {})


def write_pixels(repository: Path, preprocessing: Preprocessing, name: str = "pixels") -> Path:
    """A model whose logits are its input's pixels, so that a caller sees what reaches the network."""
    height, width = preprocessing.crop_height, preprocessing.crop_width
    count = height * width * 3
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["logits"], axis=1),
        helper.make_node("Slice", ["logits", "start", "end", "axis"], ["few"]),
        helper.make_node("LpNormalization", ["few"], ["embedding"], axis=1, p=2),
    ]
    constants = {"start": [0], "end": [8], "axis": [1]}
    document = {
        "input": _input(height, width),
        "preprocessing": {
            "resize_short_side": preprocessing.resize_short_side,
            "interpolation": preprocessing.interpolation,
            "antialias": True,
            "jpeg_scaled_decode": preprocessing.jpeg_scaled_decode,
            "normalization": {"in_graph": True, "mean": [0, 0, 0], "std": [1, 1, 1]},
        },
        "outputs": {
            "logits": {"name": "logits", "dimension": count},
            "embedding": {"name": "embedding", "dimension": 8, "l2_normalized": True},
        },
        "labels": [str(i) for i in range(count)],
    }
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", count]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8]),
        ],
        [numpy_helper.from_array(np.array(value, np.int64), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return _write(repository, name, "1", model, document)


def _input(height: int, width: int) -> dict[str, Any]:
    return {
        "name": "image", "dtype": "uint8", "layout": "NHWC", "color_order": "RGB",
        "height": height, "width": width,
    }  # fmt: skip


def _colors_graph(*, side: int = 0, products: int = 0, nan_when_black: bool = False) -> onnx.ModelProto:
    constants = {"sixteen": np.float32(16), "one": np.float32(1), "flat": np.array([-1, SIZE * 3], np.int64)}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "rows_columns"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "sixteen"], ["plain_logits"]),
        helper.make_node("ReduceMean", ["pixels", "rows"], ["columns"], keepdims=0),
        helper.make_node("Reshape", ["columns", "flat"], ["vector"]),
        helper.make_node("Add", ["vector", "one"], ["shifted"]),
        helper.make_node("LpNormalization", ["shifted"], ["embedding"], axis=1, p=2),
    ]
    constants["rows_columns"] = np.array([1, 2], np.int64)
    constants["rows"] = np.array([1], np.int64)
    if products:
        # Depends on the input, so that no optimizer works it out beforehand; adds nothing to the logits.
        constants |= {"shape": np.array([side, side], np.int64), "zero": np.float32(0)}
        nodes += [
            helper.make_node("ReduceMean", ["pixels"], ["brightness"], keepdims=0),
            helper.make_node("Expand", ["brightness", "shape"], ["product0"]),
        ]
        for i in range(products):
            nodes.append(helper.make_node("MatMul", [f"product{i}", "product0"], [f"raw{i}"]))
            nodes.append(helper.make_node("Tanh", [f"raw{i}"], [f"product{i + 1}"]))
        nodes += [
            helper.make_node("ReduceMean", [f"product{products}"], ["scalar"], keepdims=0),
            helper.make_node("Mul", ["scalar", "zero"], ["nothing"]),
            helper.make_node("Add", ["plain_logits", "nothing"], ["logits"]),
        ]
    elif nan_when_black:
        nodes += [
            helper.make_node("Div", ["plain_logits", "plain_logits"], ["ones"]),  # 0 ÷ 0 is NaN
            helper.make_node("Mul", ["plain_logits", "ones"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain_logits"], ["logits"]))
    return classifier("colors", nodes, constants, EMBEDDING_DIMENSION)


def classifier(
    name: str, nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Any], dimension: int
) -> onnx.ModelProto:
    """A graph from `image` to the logits of `LABELS` and an embedding of so many numbers."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dimension]),
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _write(
    repository: Path, name: str, version: str, model: onnx.ModelProto, changes: dict[str, Any]
) -> Path:
    return _write_content(repository, name, version, model.SerializeToString(), changes)


def _write_content(
    repository: Path, name: str, version: str, content: bytes, changes: dict[str, Any]
) -> Path:
    folder = repository / name / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    manifest = manifest_document(name, version, hashlib.sha256(content).hexdigest()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def manifest_document(name: str, version: str, sha256: str) -> dict[str, Any]:
    """The colors model's manifest."""
    agreement = {"images": 1, "top1_agreement": 1.0, "max_relative_error": 0.0, "embedding_cosine": 1.0}
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "architecture": "mean-color",
        "task": "single_label",
        "input": _input(SIZE, SIZE),
        "preprocessing": {
            "resize_short_side": SIZE, "interpolation": "bilinear", "antialias": True,
            "normalization": {"in_graph": True, "mean": [0, 0, 0], "std": [1, 1, 1]},
        },
        "outputs": {
            "logits": {"name": "logits", "dimension": len(LABELS)},
            "embedding": {"name": "embedding", "dimension": EMBEDDING_DIMENSION, "l2_normalized": True},
        },
        "labels": list(LABELS),
        "temperature": 1.0,
        "variants": [
            {"file": "model.onnx", "sha256": sha256, "precision": "fp32", "provider": "any",
             "agreement": agreement}
        ],
        "provenance": {
            "created": "2026-01-01T00:00:00Z", "training_data": "none", "recipe": "built by hand",
            "commit": "", "licence": "",
        },
    }  # fmt: skip


GOOD_AGREEMENT = {
    "images": 200, "top1_agreement": 1.0, "max_relative_error": 0.01, "embedding_cosine": 0.9999,
}  # fmt: skip
_NETWORK_CHANNELS = 8


def write_network(repository: Path, name: str = "network", **agreements: dict[str, Any]) -> Path:
    """A small convolutional network; returns the package's folder.

    Args:
        repository: where to.
        name: of the model.
        agreements: precision → changes to a good agreement, of the variants that there shall be beside
            fp32: int8 (U8S8, for cpu), bf16 (the fp32 file, for openvino).
    """
    fp32 = _network_graph().SerializeToString()
    folder = _write_content(repository, name, "1", fp32, _network_document())
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for precision, changes in agreements.items():
        content, file, provider = fp32, "model.onnx", "openvino"
        if precision == "int8":
            content, file, provider = _network_int8(), "model.int8.onnx", "cpu"
            (folder / file).write_bytes(content)
        document["variants"].append(
            {"file": file, "sha256": hashlib.sha256(content).hexdigest(), "precision": precision,
             "provider": provider, "agreement": GOOD_AGREEMENT | changes}
        )  # fmt: skip
    path.write_text(json.dumps(document))
    return folder


def _network_graph() -> onnx.ModelProto:
    random, channels = np.random.default_rng(7), _NETWORK_CHANNELS
    constants = {
        "scale": np.float32(1 / 128),
        "weight": random.normal(0, 0.3, (channels, 3, 3, 3)).astype(np.float32),
        "weight2": random.normal(0, 0.3, (channels, channels, 3, 3)).astype(np.float32),
        "head": random.normal(0, 1, (channels, len(LABELS))).astype(np.float32),
        "bias": np.zeros(len(LABELS), np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight"], ["first"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Conv", ["active", "weight2"], ["second"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["second"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
        helper.make_node("LpNormalization", ["vector"], ["embedding"], axis=1, p=2),
        helper.make_node("Gemm", ["vector", "head", "bias"], ["logits"]),
    ]
    return classifier("network", nodes, constants, channels)


def _network_document() -> dict[str, Any]:
    return {
        "outputs": {
            "logits": {"name": "logits", "dimension": len(LABELS)},
            "embedding": {"name": "embedding", "dimension": _NETWORK_CHANNELS, "l2_normalized": True},
        }
    }


@functools.cache
def _network_int8() -> bytes:
    """The network in U8S8, its convolutions only."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Noise(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
        def __init__(self) -> None:
            random = np.random.default_rng(3)
            self._batches = iter([random.integers(0, 256, (16, SIZE, SIZE, 3), np.uint8)])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            _network_graph(),
            target,
            Noise(),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()
