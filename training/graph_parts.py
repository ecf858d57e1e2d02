"""The parts of an exported graph that stay float32 when the rest is made smaller."""

import onnx

from training.graph import EMBEDDING, LOGITS


def float_nodes(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that stay exact: normalisation, GeM's powers, the embedding's unit length.

    The first turns pixels into the network's input, before its first layer with weights; eight bits of
    result would add their rounding to every pixel. Powers, and the squares of a length, overflow in float16,
    and the smallest length that may be divided by rounds to zero. Whitening subtracts what is nearly equal.
    """
    first = next((node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")), None)
    before = _ancestors(graph, list(first.input)) if first else set()
    kept = before | _generalized_means(graph) | _unit_length(graph)
    return [node.name for index, node in enumerate(graph.node) if index in kept]


def _unit_length(graph: onnx.GraphProto) -> set[int]:
    """What only the embedding comes from, behind the features that it shares with the logits.

    Where there are no logits, all that is behind the first length that no convolution is behind.
    """
    of_embedding = _ancestors(graph, [EMBEDDING])
    if any(output.name == LOGITS for output in graph.output):
        return of_embedding - _ancestors(graph, [LOGITS])
    convolutions = [name for node in graph.node if node.op_type == "Conv" for name in node.input]
    inside = _ancestors(graph, convolutions)
    lengths = {
        index for index, node in enumerate(graph.node) if node.op_type == "ReduceL2" and index not in inside
    }
    return (lengths | _descendants(graph, lengths)) & of_embedding


def _generalized_means(graph: onnx.GraphProto) -> set[int]:
    """GeM pooling: a power, the mean over the picture, a root."""
    producer = {output: index for index, node in enumerate(graph.node) for output in node.output}
    found: set[int] = set()
    for root, node in enumerate(graph.node):
        mean = producer.get(node.input[0]) if node.op_type == "Pow" else None
        if mean is None or graph.node[mean].op_type != "ReduceMean":
            continue
        power = producer.get(graph.node[mean].input[0])
        if power is not None and graph.node[power].op_type == "Pow":
            found |= {power, mean, root}
    return found


def pooling_and_head(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes behind the last convolution, from whatever makes vectors of its maps on.

    They cost next to nothing, and each rounding here is one of the answer itself; capsules that agree are
    told from others by small differences, and eight bits around zero let a length of 1 be above it.
    """
    last = max(
        (index for index, node in enumerate(graph.node) if node.op_type == "Conv"), default=len(graph.node)
    )
    pools = ("GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Squeeze", "Gemm", "MatMul")
    first = {index for index, node in enumerate(graph.node) if index > last and node.op_type in pools}
    kept = first | _descendants(graph, first)
    return [node.name for index, node in enumerate(graph.node) if index in kept]


def first_layers(graph: onnx.GraphProto, convolutions: int) -> list[str]:
    """The names of the nodes before the convolution that comes after so many.

    What is rounded first is rounded for all that follows: of an EfficientNet-lite0 these cost more agreement
    than any others, and in U8S8 the first two no time.
    """
    places = [index for index, node in enumerate(graph.node) if node.op_type == "Conv"]
    end = places[convolutions] if len(places) > convolutions else 0
    return [node.name for node in graph.node[:end]]


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


def _descendants(graph: onnx.GraphProto, nodes: set[int]) -> set[int]:
    """Indices of the nodes that are computed from those of `nodes`."""
    # An ONNX graph's nodes stand in the order of computation.
    reached = {output for index in nodes for output in graph.node[index].output}
    found: set[int] = set()
    for index, node in enumerate(graph.node):
        if reached.intersection(node.input):
            found.add(index)
            reached.update(node.output)
    return found
