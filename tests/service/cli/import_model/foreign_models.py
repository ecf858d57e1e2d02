"""ONNX models as others export them: small ones built here, and onnx's own light ones with weights."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES, WIDTH = 12, 5, 8
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).normal(0, 0.5, shape).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    input_shape: Sequence[int | str],
    outputs: dict[str, Sequence[int | str]],
    *,
    opset: int = 17,
    input_name: str = "x",
    weights_as_inputs: bool = False,
) -> onnx.ModelProto:
    """A model with one input of pictures."""
    kind = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(input_name, kind, input_shape)]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    if weights_as_inputs:
        inputs += [
            helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in initializers
        ]
    graph = helper.make_graph(
        list(nodes),
        "foreign",
        inputs,
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        initializers,
    )
    ir_version = 3 if weights_as_inputs else 8
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def classifier(
    *,
    layout: str = "NCHW",
    batch: int | str = "N",
    size: int | str = SIZE,
    channels: int | str = 3,
    opset: int = 17,
    ending: str = "",
    reshape: Sequence[int] | None = None,
    weights_as_inputs: bool = False,
    input_name: str = "x",
    output_name: str = "y",
) -> onnx.ModelProto:
    """Convolution, mean, a layer with weights; `ending`: an operator, or "arithmetic", softmax in pieces."""
    constants = {
        "w": weights(WIDTH, 3, 3, 3),
        "head": weights(WIDTH, CLASSES),
        "bias": weights(CLASSES),
    }
    nodes, pixels = [], input_name
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [pixels], ["planes"], perm=[0, 3, 1, 2]))
        pixels = "planes"
    nodes += [
        helper.make_node("Conv", [pixels, "w"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
    ]
    if reshape is None:
        nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    else:
        constants["shape"] = np.array(reshape, np.int64)
        nodes.append(helper.make_node("Reshape", ["pooled", "shape"], ["features"]))
    logits = "z" if ending else output_name
    gemm = helper.make_node("Gemm", ["features", "head", "bias"], [logits])
    if opset < 7:
        gemm.attribute.append(helper.make_attribute("broadcast", 1))
    nodes.append(gemm)
    if ending == "arithmetic":
        nodes += [
            helper.make_node("Exp", ["z"], ["e"]),
            helper.make_node("ReduceSum", ["e", "last"], ["sum"], keepdims=1),
            helper.make_node("Div", ["e", "sum"], [output_name]),
        ]
        constants["last"] = np.array([1], np.int64)
    elif ending:
        nodes.append(helper.make_node(ending, ["z"], [output_name]))
    shape = [batch, channels, size, size] if layout == "NCHW" else [batch, size, size, channels]
    return model_of(
        nodes, constants, shape, {output_name: [batch, CLASSES]},
        opset=opset, input_name=input_name, weights_as_inputs=weights_as_inputs,
    )  # fmt: skip


def in_half(model: onnx.ModelProto, *, outside: bool) -> onnx.ModelProto:
    """A model in float16, its only input and output too, or with casts that stand behind all else.

    So onnxruntime.transformers.float16 leaves them, with and without keep_io_types.
    """
    graph = model.graph
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    (taken,), (given,) = graph.input, graph.output
    if outside:
        for value in (taken, given):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        return model
    for node in graph.node:
        node.input[:] = [f"half {name}" if name == taken.name else name for name in node.input]
        node.output[:] = [f"half {name}" if name == given.name else name for name in node.output]
    for source, target, kind in (
        (f"half {given.name}", given.name, TensorProto.FLOAT),
        (taken.name, f"half {taken.name}", TensorProto.FLOAT16),
    ):
        graph.node.append(helper.make_node("Cast", [source], [target], to=kind))
    return model


def prepared(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a model gets with import-model's defaults: float32 [batch, 3, height, width]."""
    values = (pixels / 255 - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    planes: NDArray[np.float32] = values.transpose(0, 3, 1, 2).astype(np.float32)
    return planes


def in_eight_bits(model: onnx.ModelProto, form: str, calibration: NDArray[np.uint8]) -> onnx.ModelProto:
    """As ONNX Runtime's own quantizer leaves it; form: QDQ, QOperator or dynamic."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Pictures(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
        def __init__(self) -> None:
            self._batches = iter([{model.graph.input[0].name: prepared(calibration)}])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = save(Path(folder, "float.onnx"), model), Path(folder, "eight.onnx")
        if form == "dynamic":
            quantize_dynamic(source, target)
        else:
            quantize_static(source, target, Pictures(), quant_format=QuantFormat[form])
        return onnx.load(target)


def image_tower(*, fixed: bool = False, projected: bool = False) -> onnx.ModelProto:
    """A vision transformer of one block (arXiv:2010.11929): [batch, 10 tokens, 8], or CLIP's [batch, 6].

    Args:
        fixed: exported for one picture: the class token is a constant [1, 1, 8], as exporters fold it.
        projected: ends with the class token's projection.
    """
    tokens, heads, per_head = (SIZE // 4) ** 2 + 1, 2, WIDTH // 2
    constants: dict[str, NDArray[Any]] = {
        "patch": weights(WIDTH, 3, 4, 4),
        "class": weights(1, 1, WIDTH, seed=1),
        "place": weights(1, tokens, WIDTH, seed=2),
        "scale": np.ones(WIDTH, np.float32),
        "shift": weights(WIDTH, seed=3),
        "project": weights(WIDTH, 6, seed=4),
        "root": np.array(per_head**0.5, np.float32),
        "flat": np.array([0, WIDTH, -1], np.int64),
        "split": np.array([1 if fixed else 0, tokens, heads, per_head], np.int64),
        "joined": np.array([1 if fixed else 0, tokens, WIDTH], np.int64),
        "zero": np.array(0, np.int64),
        "first": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([1, WIDTH], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "patch"], ["patches"], strides=[4, 4]),
        helper.make_node("Reshape", ["patches", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["words"], perm=[0, 2, 1]),
    ]
    leading = "class"
    if not fixed:
        nodes += [
            helper.make_node("Shape", ["x"], ["sizes"]),
            helper.make_node("Slice", ["sizes", "first", "one"], ["batch"]),
            helper.make_node("Concat", ["batch", "rest"], ["token_shape"], axis=0),
            helper.make_node("Expand", ["class", "token_shape"], ["classes"]),
        ]
        leading = "classes"
    nodes += [
        helper.make_node("Concat", [leading, "words"], ["sentence"], axis=1),
        helper.make_node("Add", ["sentence", "place"], ["placed"]),
        helper.make_node("LayerNormalization", ["placed", "scale", "shift"], ["normal"]),
    ]
    for name, seed, order in (("q", 5, [0, 2, 1, 3]), ("k", 6, [0, 2, 3, 1]), ("v", 7, [0, 2, 1, 3])):
        constants[f"w{name}"] = weights(WIDTH, WIDTH, seed=seed)
        nodes += [
            helper.make_node("MatMul", ["normal", f"w{name}"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", "split"], [f"{name}_split"]),
            helper.make_node("Transpose", [f"{name}_split"], [name], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["raw"]),
        helper.make_node("Div", ["raw", "root"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"]),
        helper.make_node("MatMul", ["attention", "v"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "joined"], ["together"]),
        helper.make_node("Add", ["placed", "together"], ["tokens"]),
    ]
    outputs: dict[str, Sequence[int | str]] = {"tokens": [1 if fixed else "N", tokens, WIDTH]}
    if projected:
        nodes += [
            helper.make_node("Gather", ["tokens", "zero"], ["cls"], axis=1),
            helper.make_node("MatMul", ["cls", "project"], ["vector"]),
        ]
        outputs = {"vector": [1 if fixed else "N", 6]}
    return model_of(nodes, constants, [1 if fixed else "N", 3, SIZE, SIZE], outputs)


def light_model(name: str) -> onnx.ModelProto:
    """One of onnx's light models: the real graph, whose weights are given back here, seeded.

    They come as constants that are all alike, so that every class would be as likely as every other.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph = model.graph
    shapes = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    draw = np.random.default_rng(0)
    kept = []
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None or len(shape) not in (2, 4):
            kept.append(node)
            continue
        deviation = np.sqrt(2 / np.prod(shape[1:]))  # He et al. 2015, arXiv:1502.01852
        values = draw.standard_normal(shape.tolist(), np.float32) * np.float32(deviation)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    # Of this IR version weights are inputs too.
    there = {each.name for each in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in graph.initializer
        if each.name not in there
    )
    return model


def run_by_itself(
    model: onnx.ModelProto, pixels: NDArray[np.uint8], *, tensors: Sequence[str] = (), nhwc: bool = False,
    bgr: bool = False, scale: float = 1 / 255, mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> list[NDArray[np.float32]]:  # fmt: skip
    """What the model gives for pictures, one by one, prepared here: its outputs, then `tensors`."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        copied.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    rows = []
    for picture in pixels:
        values = ((picture[..., ::-1] if bgr else picture) * scale - np.array(mean)) / np.array(std)
        batch = (values if nhwc else values.transpose(2, 0, 1))[None].astype(np.float32)
        rows.append(session.run(None, {name: batch}))
    return [np.concatenate(each) for each in zip(*rows, strict=True)]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    units: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return units
