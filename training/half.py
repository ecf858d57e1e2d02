"""A float32 graph → a float16 one, for GPUs."""

from pathlib import Path

import onnx

from training.errors import ExportError
from training.graph import copy_metadata
from training.graph_parts import float_nodes
from training.runtime import onnxruntime_module


def to_float16(source: Path, target: Path) -> None:
    """Write the float16 twin of an exported graph: the same input, and the outputs still float32.

    Args:
        source: the float32 file.
        target: the file to write; takes the source's metadata too.

    Raises:
        ExportError: ONNX Runtime isn't installed or can't convert the graph.
        OSError: the file can't be written.
    """
    onnxruntime_module()
    # onnxconverter_common's version of the same writes a graph that doesn't load where the input is cast.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(source)
    kept = float_nodes(model.graph)
    try:
        smaller = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
        _once(smaller.graph)
        _without_round_trips(smaller.graph, set(kept))
        # The converter appends the casts around the nodes that it leaves alone; ONNX wants them in order.
        OnnxModel(smaller).topological_sort()
    except Exception as error:  # the converter raises many kinds
        raise ExportError(f"ONNX Runtime can't make {source.name} float16: {error}") from error
    onnx.save(smaller, target)
    copy_metadata(source, target)


def _once(graph: onnx.GraphProto) -> None:
    """Drop casts that the converter wrote twice, where two nodes that it leaves alone share an input."""
    seen: set[str] = set()
    for node in list(graph.node):
        if node.output[0] in seen:
            graph.node.remove(node)
        seen.add(node.output[0])


def _without_round_trips(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Let the nodes that stay float32 hand each other, and the outputs, float32 values.

    The converter rounds whatever such a node gives to float16, also where the next reader casts it back.
    """
    producer = {output: node for node in graph.node for output in node.output}
    exact: dict[str, str] = {}
    for node in graph.node:
        rounded = producer.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if rounded is not None and _casts_to(rounded, onnx.TensorProto.FLOAT16):
            source = producer.get(rounded.input[0])
            if source is not None and source.name in kept:
                exact[node.output[0]] = node.input[0] = rounded.input[0]
    for node in graph.node:
        node.input[:] = [exact.get(name, name) for name in node.input]
    outputs = {output.name for output in graph.output}
    # Twice: a cast back, then the cast that only it read. The one to an output stays, and does nothing.
    for _ in range(2):
        read = outputs.union(*(node.input for node in graph.node))
        for node in list(graph.node):
            if not read.intersection(node.output):
                graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, dtype: int) -> bool:
    return node.op_type == "Cast" and any(entry.name == "to" and entry.i == dtype for entry in node.attribute)
