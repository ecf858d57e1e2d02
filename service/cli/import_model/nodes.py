"""Nodes and constants for a graph that has names of its own, in the words of its opset."""

from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# The first opset in which axes are an input of reductions.
_AXES_AS_INPUT = 18


class Nodes:
    """Collects nodes; constants go into the graph at once."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self._graph, self._opset = graph, opset
        self._used = names_in(graph)
        self._nodes: list[onnx.NodeProto] = []

    def free(self, name: str) -> str:
        """The name, or one like it where the graph has it already; taken from now on."""
        while name in self._used:
            name += "_"
        self._used.add(name)
        return name

    def take(self) -> list[onnx.NodeProto]:
        """The nodes added since the last time."""
        nodes, self._nodes = self._nodes, []
        return nodes

    def constant(self, value: NDArray[Any]) -> str:
        """A new constant's name."""
        name = self.free("fovea/constant")
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def scalar(self, value: float) -> str:
        """A float32 constant."""
        return self.constant(np.array(value, np.float32))

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node with one output, `output` or a new name, which is returned."""
        name = output or self.free(f"fovea/{kind}")
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def reduce(self, kind: str, value: str, *axes: int, keepdims: bool = False) -> str:
        """ReduceMean, ReduceMax or ReduceL2."""
        if self._opset < _AXES_AS_INPUT:
            return self.add(kind, value, axes=list(axes), keepdims=int(keepdims))
        return self.add(kind, value, self.constant(np.array(axes, np.int64)), keepdims=int(keepdims))

    def reshape(self, value: str, *shape: int) -> str:
        """0 keeps a dimension, -1 takes what is left."""
        return self.add("Reshape", value, self.constant(np.array(shape, np.int64)))


def names_in(graph: onnx.GraphProto) -> set[str]:
    """Every tensor's name, those of subgraphs included."""
    names = {value.name for value in (*graph.input, *graph.output)}
    names |= {weight.name for weight in graph.initializer}
    for node in graph.node:
        names.update(node.input, node.output)
        for inner in subgraphs(node):
            names |= names_in(inner)
    return names


def reads(node: onnx.NodeProto) -> set[str]:
    """The names that a node reads, those inside its subgraphs included."""
    names = {name for name in node.input if name}
    for inner in subgraphs(node):
        names.update(output.name for output in inner.output)
        for each in inner.node:
            names |= reads(each)
    return names


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Of If, Loop and Scan."""
    return [
        graph
        for attribute in node.attribute
        for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ()))
    ]


def put_in_order(graph: onnx.GraphProto) -> None:
    """Bring nodes behind those whose outputs they read; those that are so already stay as they are.

    Some converters append the casts around what they leave alone, and ONNX Runtime doesn't mind.

    Raises:
        graphlib.CycleError: nodes wait for each other.
    """
    place = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    before = {
        number: {place[name] for name in reads(node) if name in place}
        for number, node in enumerate(graph.node)
    }
    if all(each < number for number, needed in before.items() for each in needed):
        return
    # Copies, because emptying a field ends its messages.
    nodes = onnx.GraphProto(node=[graph.node[number] for number in TopologicalSorter(before).static_order()])
    graph.ClearField("node")
    graph.MergeFrom(nodes)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Take out the nodes and weights that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # which are in the order in which they can run
        if not needed.isdisjoint(node.output):
            needed |= reads(node)
            kept.append(node)
    weights = [weight for weight in graph.initializer if weight.name in needed]
    sparse = [weight for weight in graph.sparse_initializer if weight.values.name in needed]
    # Copies, because emptying a field ends its messages.
    graph_left = onnx.GraphProto(node=kept[::-1], initializer=weights, sparse_initializer=sparse)
    for name in ("node", "initializer", "sparse_initializer"):
        graph.ClearField(name)
    graph.MergeFrom(graph_left)
