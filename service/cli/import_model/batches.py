"""Graphs that were exported for one batch size, brought to take any."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.cli.import_model.foreign import Foreign
from service.cli.import_model.nodes import Nodes, reads
from service.cli.import_model.packaged import Packaged, package_graph
from service.cli.import_model.recipe import Recipe

AS_IT_IS = "its batch dimension left open"
RESHAPED = "the batch sizes in its reshapes left open too"
ONE_BY_ONE = "one picture at a time, in a loop: a batch then costs as much as its pictures alone"


def ways_to_batch(foreign: Foreign, recipe: Recipe) -> Iterator[tuple[str, Packaged]]:
    """Packaged graphs that may take batches of any size, the best first; which does is for the caller to try.

    Exporters write the size of their batch into the input's shape and into reshapes. Where neither is all,
    a loop (Scan) around the whole graph is right for every graph made for one picture.
    """
    opened = _with_open_reshapes(foreign)
    if foreign.fixed_batch is not None and opened is not None:
        yield RESHAPED, package_graph(opened, recipe)
    yield AS_IT_IS, package_graph(foreign, recipe)
    if foreign.fixed_batch is None and opened is not None:
        yield RESHAPED, package_graph(opened, recipe)
    if foreign.fixed_batch in (None, 1):
        yield ONE_BY_ONE, _one_by_one(foreign, recipe)


def _with_open_reshapes(foreign: Foreign) -> Foreign | None:
    """The model with no batch size in its reshapes' targets; None where there are none to open."""
    size = foreign.fixed_batch or 1
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    shapes = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            shapes[node.output[0]] = node.attribute[0].t
    of_picture = {foreign.input_name}
    changed = 0
    for number, node in enumerate(graph.node):
        if of_picture.isdisjoint(reads(node)):
            continue
        of_picture.update(node.output)
        if node.op_type != "Reshape" or node.input[0] not in of_picture or node.input[1] not in shapes:
            continue
        target = _opened(numpy_helper.to_array(shapes[node.input[1]]).tolist(), size)
        if target is not None:
            name = f"fovea/opened-{number}"
            graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), name))
            node.input[1] = name
            changed += 1
    return replace(foreign, model=model) if changed else None


def _opened(target: list[int], size: int) -> list[int] | None:
    """A reshape's target whose first dimension follows the batch; None where it does already."""
    if not target or target[0] <= 0 or target[0] % size:
        return None
    if -1 not in target:
        return [-1, *target[1:]]
    # What is left is another dimension; the first is the batch itself, kept as it is.
    return [0, *target[1:]] if target[0] == size else None


def _one_by_one(foreign: Foreign, recipe: Recipe) -> Packaged:
    """The graph as the body of a loop over the batch's pictures (Scan, ONNX opset 9)."""
    inner = package_graph(foreign, recipe, "fovea/one/")
    model, graph = onnx.ModelProto(), inner.model.graph
    model.CopyFrom(inner.model)
    nodes = Nodes(graph, foreign.opset)
    picture = nodes.free("fovea/picture")
    body = onnx.GraphProto(name="one_picture")
    nodes.add("Reshape", picture, nodes.constant(np.array([1, recipe.height, recipe.width, 3], np.int64)),
              output=inner.image)  # fmt: skip
    before = nodes.take()
    rows = [nodes.reshape(output.name, -1) for output in graph.output]
    body.node.extend([*before, *graph.node, *nodes.take()])
    body.initializer.extend(graph.initializer)
    body.sparse_initializer.extend(graph.sparse_initializer)
    body.input.append(_value(picture, TensorProto.UINT8, recipe.height, recipe.width, 3))
    sizes = [output.type.tensor_type.shape.dim[1].dim_value for output in graph.output]
    body.output.extend(_value(row, TensorProto.FLOAT, size) for row, size in zip(rows, sizes, strict=True))
    # A name outside that is one inside too would be refused.
    image, embedding = nodes.free("image"), nodes.free("embedding")
    logits = None if inner.logits is None else nodes.free("logits")
    names = [embedding] if logits is None else [logits, embedding]
    scan = helper.make_node("Scan", [image], names, "fovea/scan", body=body, num_scan_inputs=1)
    model.graph.CopyFrom(onnx.GraphProto(name=graph.name or "packaged", node=[scan]))
    model.graph.input.append(_value(image, TensorProto.UINT8, "batch", recipe.height, recipe.width, 3))
    model.graph.output.extend(
        _value(name, TensorProto.FLOAT, "batch", size) for name, size in zip(names, sizes, strict=True)
    )
    return Packaged(model, image, logits, embedding)


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
