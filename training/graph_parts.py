"""The parts of an exported graph that stay float32 when the rest is made smaller."""

import onnx

from training.graph import EMBEDDING, LOGITS


def float_nodes(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that stay exact: normalisation, and the embedding's way to unit length.

    The first turns pixels into the network's input, before its first layer with weights; eight bits of
    result would add their rounding to every pixel. The second squares and divides: in float16 a sum of
    squares overflows, and the smallest length that it may divide by rounds to zero.
    """
    first = next((node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")), None)
    before = _ancestors(graph, list(first.input)) if first else set()
    only_embedding = _ancestors(graph, [EMBEDDING]) - _ancestors(graph, [LOGITS])
    return [node.name for index, node in enumerate(graph.node) if index in before | only_embedding]


def pooling_and_head(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes from the features' mean over the picture to the logits.

    They cost next to nothing, and each rounding here is one of the answer itself.
    """
    last = max(
        (index for index, node in enumerate(graph.node) if node.op_type == "Conv"), default=len(graph.node)
    )
    pools = ("GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Squeeze", "Gemm", "MatMul")
    return [node.name for node in graph.node[last + 1 :] if node.op_type in pools]


def around_max_pooling(graph: onnx.GraphProto) -> list[str]:
    """The names of the max poolings and of what is right before and behind them.

    OpenVINO (plugin 1.8.1) computes something else where a quantized tensor touches a max pooling: a
    ResNet-50's logits were off by half of their range, and by 2% with these four nodes in float32, which
    are 4% of its work.
    """
    producer = {output: node for node in graph.node for output in node.output}
    found = []
    for pool in graph.node:
        if pool.op_type != "MaxPool":
            continue
        before = producer.get(pool.input[0])
        if before is not None and before.op_type == "Relu":
            before = producer.get(before.input[0])
        behind = [node for node in graph.node if pool.output[0] in node.input]
        found += [node.name for node in (before, pool, *behind) if node is not None]
    return found


def _ancestors(graph: onnx.GraphProto, tensors: list[str]) -> set[int]:
    """Indices of the nodes that the tensors are computed by."""
    producer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    found: set[int] = set()
    waiting = [producer[name] for name in tensors if name in producer]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [producer[name] for name in graph.node[index].input if name in producer]
    return found
