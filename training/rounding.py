"""Convolutions' weights put on their int8 grid so that each layer's outputs stay, as near as may be.

GPTQ (Frantar et al. 2022, arXiv:2210.17323): weights are rounded one input after the other, and what each
rounding does to the outputs is taken back by the weights that are still to come. What that takes is the
second moment of each layer's inputs, from a run of the float network on real pictures.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from training.graph import INPUT
from training.runtime import cpu_session

# Of the pictures, and of the places in each of them that a layer's inputs are looked at.
_PICTURES, _PLACES = 64, 64
_BATCH_SIZE = 4
# Columns that are rounded before the others are told of it, which is one product of matrices then.
_BLOCK = 128
# Of the moments' mean, added to each: inputs that never differ can't be told apart.
_DAMPING = 0.01
# Inputs that a layer may have: moments are as many squared, and to invert them takes as many cubed. VGG's
# widest convolutions have 4,608; a capsule network's 20,736 would take over 10 GB and many minutes.
_MOST_INPUTS = 8192
_LEVELS = 127

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Layer:
    """A convolution.

    Attributes:
        input, weight: names of tensors.
        groups: of channels.
        kernel, strides, pads: height and width; pads before and behind.
    """

    input: str
    weight: str
    groups: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]


def round_weights(model: onnx.ModelProto, images: NDArray[np.uint8], exact: Collection[str]) -> None:
    """Put the weights of a float32 graph's convolutions on the grid that quantization finds for them.

    The grid is symmetric, 127 steps to each output channel's largest weight, which stays as it is.

    Layers of very many inputs are left as they are, to be rounded to the nearest: see `_MOST_INPUTS`.

    Args:
        model: changed in place.
        images: uint8 [count, height, width, 3]; up to 64 are run, evenly spread.
        exact: names of the nodes that stay float32, and so are left alone.

    Raises:
        ExportError: ONNX Runtime isn't installed.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    layers = [layer for node in model.graph.node if (layer := _layer(node, weights, exact)) is not None]
    if not layers:
        return
    chosen = np.unique(np.linspace(0, len(images) - 1, _PICTURES).round().astype(int))
    moments = _moments(model, layers, images[chosen])
    for layer, moment in zip(layers, moments, strict=True):
        values = numpy_helper.to_array(weights[layer.weight])
        grouped = values.reshape(layer.groups, len(values) // layer.groups, -1).astype(np.float64)
        rounded = on_grid(grouped, moment).reshape(values.shape).astype(values.dtype)
        weights[layer.weight].CopyFrom(numpy_helper.from_array(rounded, layer.weight))


def on_grid(weights: Array, moments: Array) -> Array:
    """Weights rounded to their outputs' grids, each rounding's error made up for by what comes after it.

    Args:
        weights: [groups, outputs, inputs].
        moments: [groups, inputs, inputs], the sum or mean of the inputs' products.

    Returns:
        As `weights`.
    """
    groups, _, inputs = weights.shape
    sizes = np.abs(weights)
    largest = sizes.max(axis=2, keepdims=True)
    steps = np.where(largest > 0, largest / _LEVELS, 1)
    diagonal = np.einsum("gii->gi", moments)
    # The inputs that matter most first, while all others can still make up for them.
    order = np.argsort(-diagonal, axis=1, kind="stable")
    spread = _DAMPING * diagonal.mean(axis=1)[:, None, None] + np.finfo(np.float32).tiny
    damped = moments + spread * np.eye(inputs)
    rows = np.arange(groups)[:, None, None]
    damped = damped[rows, order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = np.take_along_axis(weights, order[:, None, :], axis=2)
    # The largest weight makes the step, so it stays on the edge of its grid.
    edge = np.take_along_axis(sizes == largest, order[:, None, :], axis=2)
    signs = np.sign(left)
    done = np.empty_like(left)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.empty((*left.shape[:2], end - start))
        for at in range(start, end):
            level = np.clip(np.round(left[:, :, at] / steps[:, :, 0]), -_LEVELS, _LEVELS)
            level = np.where(edge[:, :, at], signs[:, :, at] * _LEVELS, level)
            done[:, :, at] = level * steps[:, :, 0]
            error = (left[:, :, at] - done[:, :, at]) / upper[:, None, at, at]
            left[:, :, at + 1 : end] -= error[:, :, None] * upper[:, None, at, at + 1 : end]
            errors[:, :, at - start] = error
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    rounded = np.empty_like(done)
    np.put_along_axis(rounded, np.broadcast_to(order[:, None, :], done.shape), done, axis=2)
    return rounded


def _layer(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], exact: Collection[str]
) -> _Layer | None:
    if node.op_type != "Conv" or node.name in exact or node.input[1] not in weights:
        return None
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    kernel = attributes.get("kernel_shape", ())
    if len(kernel) != 2 or any(step != 1 for step in attributes.get("dilations", ())):
        return None
    if math.prod(weights[node.input[1]].dims[1:]) > _MOST_INPUTS:
        return None
    return _Layer(
        node.input[0],
        node.input[1],
        attributes.get("group", 1),
        tuple(kernel),
        tuple(attributes.get("strides", (1, 1))),
        tuple(attributes.get("pads", (0, 0, 0, 0))),
    )


def _moments(model: onnx.ModelProto, layers: Sequence[_Layer], images: NDArray[np.uint8]) -> list[Array]:
    """Of each layer: [groups, inputs, inputs], the sum of its inputs' products over places and pictures."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = list(dict.fromkeys(layer.input for layer in layers))
    there = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    session = cpu_session(watched.SerializeToString())
    draw = np.random.default_rng(0)
    sums: list[Any] = [0.0] * len(layers)
    for start in range(0, len(images), _BATCH_SIZE):
        values = session.run(names, {INPUT: images[start : start + _BATCH_SIZE]})
        given = dict(zip(names, values, strict=True))
        for number, layer in enumerate(layers):
            rows = _windows(given[layer.input], layer, draw)
            sums[number] = sums[number] + rows.transpose(0, 2, 1) @ rows
    return [np.asarray(each, np.float64) for each in sums]


def _windows(maps: NDArray[np.float32], layer: _Layer, draw: np.random.Generator) -> NDArray[np.float32]:
    """Some of what the layer's kernel sees: [groups, rows, inputs]."""
    top, left, bottom, right = layer.pads
    padded = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, axis=(2, 3))
    seen = seen[:, :, :: layer.strides[0], :: layer.strides[1]]
    count, channels, height, width = seen.shape[:4]
    places = draw.integers(0, height * width, min(height * width, _PLACES))
    rows = seen[:, :, places // width, places % width]  # pictures, channels, places, kernel
    grouped = rows.reshape(count, layer.groups, channels // layer.groups, len(places), -1)
    return np.ascontiguousarray(
        grouped.transpose(1, 0, 3, 2, 4).reshape(layer.groups, count * len(places), -1), np.float32
    )
