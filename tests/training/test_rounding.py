"""Weights on their int8 grid: outputs stay nearer than by rounding each to the nearest."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.quantize import GPU, X86, Scheme, quantize
from training.rounding import on_grid, round_weights
from training.runtime import cpu_outputs

Array = NDArray[np.float64]


def nearest(weights: Array) -> Array:
    steps = np.abs(weights).max(axis=2, keepdims=True) / 127
    rounded: Array = np.round(weights / steps) * steps
    return rounded


def inputs(groups: int, rows: int, count: int) -> Array:
    """Inputs that go together, as neighbouring pixels do."""
    draw = np.random.default_rng(count)
    few = draw.normal(0, 1, (groups, rows, max(1, count // 8)))
    mixed = few @ draw.normal(0, 1, (groups, few.shape[2], count))
    noisy: Array = mixed + 0.05 * draw.normal(0, 1, mixed.shape)
    return noisy


@pytest.mark.parametrize(("groups", "outputs", "count"), [(1, 6, 24), (1, 4, 300), (16, 1, 9), (4, 3, 18)])
def test_outputs_stay_nearer_than_by_the_nearest(groups: int, outputs: int, count: int) -> None:
    draw = np.random.default_rng(0)
    weights, given = draw.normal(0, 1, (groups, outputs, count)), inputs(groups, 2000, count)
    rounded = on_grid(weights, given.transpose(0, 2, 1) @ given)

    def error(changed: Array) -> float:
        return float(np.square(given @ (changed - weights).transpose(0, 2, 1)).mean())

    assert error(rounded) < 0.6 * error(nearest(weights))


def test_every_weight_is_on_the_grid_that_quantization_finds() -> None:
    draw = np.random.default_rng(1)
    weights, given = draw.normal(0, 1, (2, 5, 40)), inputs(2, 500, 40)
    rounded = on_grid(weights, given.transpose(0, 2, 1) @ given)
    largest = np.abs(weights).max(axis=2)
    np.testing.assert_allclose(np.abs(rounded).max(axis=2), largest, rtol=1e-12)
    levels = rounded / largest[:, :, None] * 127
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)
    assert np.abs(rounded - weights).max() < 0.2


@pytest.mark.parametrize("moments", [np.zeros((1, 3, 3)), np.ones((1, 3, 3))])
def test_inputs_that_never_differ_do_no_harm(moments: Array) -> None:
    weights = np.array([[[0.0, 0.0, 0.0], [1.0, 0.3, -0.2]]])
    rounded = on_grid(weights, moments)
    assert np.isfinite(rounded).all()
    assert np.array_equal(rounded[0, 0], [0, 0, 0])
    assert rounded[0, 1, 0] == 1


def graph(*, groups: int, stride: int, pads: list[int]) -> onnx.ModelProto:
    """The service's input, one convolution, and its mean as logits and embedding."""
    draw = np.random.default_rng(3)
    channels = 8
    weights: dict[str, NDArray[np.generic]] = {
        "first": draw.normal(0, 1, (channels, 3, 1, 1)).astype(np.float32),
        "w": draw.normal(0, 1, (channels, channels // groups, 3, 3)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["wide"], "first", kernel_shape=[1, 1]),
        helper.make_node(
            "Conv", ["wide", "w"], ["maps"], "conv", group=groups, strides=[stride, stride], pads=pads,
            kernel_shape=[3, 3],
        ),
        helper.make_node("ReduceMean", ["maps", "axes"], ["logits"], "mean", keepdims=0),
        helper.make_node("Identity", ["logits"], ["embedding"], "same"),
    ]  # fmt: skip
    made = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 12, 12, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels])
            for name in ("logits", "embedding")
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("groups", "stride", "pads"), [(1, 1, [0, 0, 0, 0]), (8, 1, [1, 1, 1, 1]), (2, 2, [0, 1, 1, 0])]
)
def test_a_convolutions_outputs_stay_nearer(
    tmp_path: Path, groups: int, stride: int, pads: list[int]
) -> None:
    """Of every kind: the moments are those of what its kernel really sees."""
    images = np.random.default_rng(0).integers(0, 40, (40, 12, 12, 3)).astype(np.uint8)
    images += np.random.default_rng(1).integers(0, 200, (40, 1, 1, 3)).astype(np.uint8)
    model = graph(groups=groups, stride=stride, pads=pads)
    first, original = (numpy_helper.to_array(model.graph.initializer[index]).copy() for index in (0, 1))
    onnx.save(model, tmp_path / "model.onnx")
    reference, _ = cpu_outputs(tmp_path / "model.onnx", images[20:], 8)
    flat = original.reshape(8, 1, -1).astype(np.float64)
    errors = []
    plain = nearest(flat).reshape(original.shape).astype(np.float32)
    round_weights(model, images[:20], exact=["first"])
    careful = numpy_helper.to_array(model.graph.initializer[1])
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), first)
    for weights in (plain, careful):
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights, "w"))
        onnx.save(model, tmp_path / "rounded.onnx")
        logits, _ = cpu_outputs(tmp_path / "rounded.onnx", images[20:], 8)
        errors.append(np.abs(logits - reference).mean())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("most", "left_alone"), [(71, True), (72, False)])
def test_layers_of_very_many_inputs_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, most: int, left_alone: bool
) -> None:
    """A capsule network's second layer has 20,736: over 10 GB and many minutes to round."""
    monkeypatch.setattr("training.rounding._MOST_INPUTS", most)
    model = graph(groups=1, stride=1, pads=[0, 0, 0, 0])
    before = numpy_helper.to_array(model.graph.initializer[1]).copy()
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    round_weights(model, images, exact=["first"])
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[1]), before) == left_alone


@pytest.mark.parametrize(("scheme", "left"), [(X86, 2), (GPU, 6)])
def test_with_care_the_first_layers_stay_float32(tmp_path: Path, scheme: Scheme, left: int) -> None:
    model = graph(groups=1, stride=1, pads=[1, 1, 1, 1])
    draw = np.random.default_rng(9)
    for number in range(6):
        weight = draw.normal(0, 0.1, (8, 8, 1, 1)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"w{number}"))
        given = "maps" if number == 0 else f"deep{number - 1}"
        node = helper.make_node(
            "Conv", [given, f"w{number}"], [f"deep{number}"], f"deep{number}", kernel_shape=[1, 1]
        )
        model.graph.node.insert(4 + number, node)
    model.graph.node[10].input[0] = "deep5"
    onnx.save(model, tmp_path / "model.onnx")
    images = draw.integers(0, 256, (8, 12, 12, 3)).astype(np.uint8)
    quantize(tmp_path / "model.onnx", tmp_path / "q.onnx", images, scheme, careful=True)
    made = onnx.load(tmp_path / "q.onnx").graph
    producer = {output: node.op_type for node in made.node for output in node.output}
    weights = [producer.get(node.input[1], "") for node in made.node if node.op_type == "Conv"]
    assert weights == [""] * left + ["DequantizeLinear"] * (8 - left)


def test_quantizing_with_care_keeps_what_was_rounded(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 12, 12, 3)).astype(np.uint8)
    onnx.save(graph(groups=1, stride=1, pads=[1, 1, 1, 1]), tmp_path / "model.onnx")
    quantize(tmp_path / "model.onnx", tmp_path / "q.onnx", images, X86, careful=True)
    model = onnx.load(tmp_path / "model.onnx")
    round_weights(model, images, exact=[])
    rounded = numpy_helper.to_array(model.graph.initializer[1])
    largest = np.abs(rounded).reshape(8, -1).max(axis=1)
    levels = np.round(rounded / largest.reshape(8, 1, 1, 1) * 127).astype(int)
    stored = {
        each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "q.onnx").graph.initializer
    }
    assert np.array_equal(stored["w_quantized"], levels)
