"""The graph that the service runs, around a foreign one: pixels in, logits and unit-length embeddings out."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.cli.import_model.foreign import Foreign
from service.cli.import_model.nodes import Nodes, drop_unread
from service.cli.import_model.pixels import PixelInput
from service.cli.import_model.recipe import TINY, TOKENS, Recipe

# Leaves zero vectors zero; others are at least 1 long by then.
_EPSILON = 1e-12


@dataclass(frozen=True)
class Packaged:
    """A graph for the service.

    Attributes:
        model: of it.
        image: its input's name, of uint8 [batch, height, width, 3] RGB.
        logits: its output's name, of float32 [batch, classes]; None where there are no classes.
        embedding: its output's name, of float32 [batch, dimension].
    """

    model: onnx.ModelProto
    image: str
    logits: str | None
    embedding: str


def package_graph(foreign: Foreign, recipe: Recipe, prefix: str = "") -> Packaged:
    """Put pixels before a foreign graph, and logits and embedding behind it.

    The batch's size is left open, whatever the graph said; whether it can be is for the caller to try.

    Args:
        foreign: stays as it is.
        recipe: what becomes of its tensors.
        prefix: of the names of input and outputs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    nodes = Nodes(graph, foreign.opset)
    image = nodes.free(f"{prefix}image")
    _add_pixels(nodes, image, foreign, recipe.pixels)
    before = nodes.take()
    logits = _add_logits(nodes, recipe, f"{prefix}logits")
    embedding = _add_embedding(nodes, recipe, f"{prefix}embedding")
    behind = nodes.take()
    inside = list(graph.node)
    # Shapes that the exporter noted may be those of its own batch.
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend([*before, *inside, *behind])
    graph.input.append(
        helper.make_tensor_value_info(image, TensorProto.UINT8, ["batch", recipe.height, recipe.width, 3])
    )
    for name, size in ((logits, recipe.classes), (embedding, recipe.dimension)):
        if name is not None:
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]))
    drop_unread(graph)
    return Packaged(model, image, logits, embedding)


def _add_pixels(nodes: Nodes, image: str, foreign: Foreign, pixels: PixelInput) -> None:
    std = np.array(pixels.std)
    value = nodes.add("Cast", image, to=TensorProto.FLOAT)
    if pixels.color_order == "BGR":
        value = nodes.add("Gather", value, nodes.constant(np.array([2, 1, 0], np.int64)), axis=3)
    # (pixel × scale − mean) ÷ std, in two steps.
    factor, offset = pixels.scale / std, -np.array(pixels.mean) / std
    value = nodes.add("Mul", value, nodes.constant(factor.astype(np.float32)))
    value = nodes.add("Add", value, nodes.constant(offset.astype(np.float32)))
    value = nodes.add("Cast", value, to=foreign.input_type)
    kind, attributes = ("Transpose", {"perm": [0, 3, 1, 2]}) if pixels.layout == "NCHW" else ("Identity", {})
    nodes.add(kind, value, output=foreign.input_name, **attributes)


def _add_logits(nodes: Nodes, recipe: Recipe, name: str) -> str | None:
    source = recipe.source
    if source is None:
        return None
    value = nodes.reshape(nodes.add("Cast", source.tensor, to=TensorProto.FLOAT), 0, -1)
    if source.probabilities:
        tiny = nodes.scalar(TINY)
        likely = nodes.add("Log", nodes.add("Max", value, tiny))
        if recipe.task == "multi_label":
            rest = nodes.add("Max", nodes.add("Sub", nodes.scalar(1), value), tiny)
            likely = nodes.add("Sub", likely, nodes.add("Log", rest))
        value = likely
    return nodes.add("Identity", value, output=nodes.free(name))


def _add_embedding(nodes: Nodes, recipe: Recipe, name: str) -> str:
    value = nodes.add("Cast", recipe.embedding, to=TensorProto.FLOAT)
    if recipe.rank == 4:
        value = nodes.reduce("ReduceMean", value, 2, 3)
    elif recipe.rank == 3 and recipe.token == TOKENS[0]:
        value = nodes.add("Gather", value, nodes.constant(np.array(0, np.int64)), axis=1)
    elif recipe.rank == 3:
        value = nodes.reduce("ReduceMean", value, 1)
    # By the largest value first: squares of very small or large ones would be zero or infinite.
    largest = nodes.reduce("ReduceMax", nodes.add("Abs", value), 1, keepdims=True)
    value = nodes.add("Div", value, nodes.add("Max", largest, nodes.scalar(TINY)))
    length = nodes.reduce("ReduceL2", value, 1, keepdims=True)
    divisor = nodes.add("Max", length, nodes.scalar(_EPSILON))
    return nodes.add("Div", value, divisor, output=nodes.free(name))
