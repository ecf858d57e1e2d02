"""Which of a foreign graph's tensors are the logits and the embedding."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.foreign import Foreign, described
from service.cli.import_model.nodes import reads

# What changes a tensor's shape or place only.
_PLAIN = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast")
# What rounds a tensor to eight bits and brings it back.
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_TO_EIGHT_BITS = ("QuantizeLinear", "DynamicQuantizeLinear")
_LINEAR = ("Gemm", "MatMul", "Conv")
# The same in eight bits: operator → the places of its two sides, each followed by a scale and a zero point.
_LINEAR_OF_EIGHT_BITS = {"QLinearConv": (0, 3), "QLinearMatMul": (0, 3), "QGemm": (0, 3)}
# Of the first side is known only what it was before it was rounded.
_LINEAR_OF_INTEGERS = {"ConvInteger": (0, 1), "MatMulInteger": (0, 1)}
# What turns logits into probabilities → the task.
ACTIVATIONS = {"Softmax": "single_label", "Sigmoid": "multi_label"}
_ACTIVATIONS_OF_EIGHT_BITS = {"QLinearSoftmax": "Softmax", "QLinearSigmoid": "Sigmoid"}


@dataclass(frozen=True)
class Source:
    """Where the logits come from.

    Attributes:
        tensor: the name of theirs, or of the probabilities'.
        output: the name of what the model itself gives, before it is rounded to eight bits: what an
            activation makes of the tensor; the same where there is none, or one that works in eight bits.
        probabilities: whether the tensor holds probabilities, which the package turns into logits.
        activation: the operator behind the tensor, which is left out; empty where there is none.
        task: "single_label" or "multi_label", as far as the graph says.
    """

    tensor: str
    output: str
    probabilities: bool
    activation: str
    task: str


class Tensors:
    """Looks through a foreign graph."""

    def __init__(self, foreign: Foreign) -> None:
        self._file, self._graph = foreign.file, foreign.model.graph
        self._producer = {name: node for node in self._graph.node for name in node.output if name}
        self._place = {name: i for i, node in enumerate(self._graph.node) for name in node.output}
        # What depends on the picture; all else is weights, and what is worked out from them.
        self._of_picture = {foreign.input_name}
        for node in self._graph.node:
            if not self._of_picture.isdisjoint(reads(node)):
                self._of_picture.update(name for name in node.output if name)

    def of_picture(self, name: str) -> bool:
        """Whether a tensor depends on the picture."""
        return name in self._of_picture

    def check(self, option: str, name: str) -> str:
        """A name that the caller gave.

        Raises:
            ImportRefused: there is no such tensor, or it is a weight; names those that are like it.
        """
        if name in self._producer and self.of_picture(name):
            return name
        if name in self._producer or name in {weight.name for weight in self._graph.initializer}:
            raise ImportRefused(f"{self._file}: {option} {name!r} doesn't depend on the picture")
        near = difflib.get_close_matches(name, self._producer, n=5, cutoff=0.4)
        hint = f"; like it are {', '.join(map(repr, near))}" if near else ""
        raise ImportRefused(
            f"{self._file}: {option} {name!r} is no tensor of the graph{hint}; its outputs are "
            f"{self._outputs()}"
        )

    def logits(self, logits: str | None, probabilities: str | None, embedding: str | None) -> Source:
        """Where the logits come from: the tensor named, else the only output but for the embedding's.

        Behind a Softmax or Sigmoid lie probabilities: there its input is taken, whose values are exact. An
        int8 model may round its probabilities to eight bits, which is left out too.

        Args:
            logits, probabilities: names that the caller gave, at most one of them.
            embedding: the same; if it is an output, it isn't the logits.

        Raises:
            ImportRefused: no such tensor, or several outputs that might be meant.
        """
        if logits is not None:
            return _plain(self.check("--logits", logits))
        if probabilities is not None:
            name = self.check("--probabilities", probabilities)
            return self._before_activation(name) or _plain(name, probabilities=True)
        name = self.only_output("--logits", {embedding} if embedding else set())
        return self._before_activation(name) or _plain(name)

    def only_output(self, option: str, but: Iterable[str] = ()) -> str:
        """The graph's output, where there is one.

        Raises:
            ImportRefused: there are several; lists them.
        """
        left = [value.name for value in self._graph.output if value.name not in set(but)]
        if len(left) != 1:
            raise ImportRefused(
                f"{self._file}: the graph has {len(left)} outputs to choose from; say which with {option}: "
                f"{self._outputs()}"
            )
        return self.check(option, left[0])

    def before_last_linear(self, logits: str) -> str:
        """The picture's features: what the last layer with weights makes the logits of.

        Raises:
            ImportRefused: there is no such layer.
        """
        for node in reversed(list(self._ancestors(logits))):
            if (features := self._features(node)) is not None:
                return features
        raise ImportRefused(
            f"{self._file}: no Gemm, MatMul or Conv with weights leads to {logits!r}; say which tensor holds "
            "the features with --embedding"
        )

    def _before_activation(self, name: str) -> Source | None:
        at, output = name, name
        while (node := self._producer.get(at)) is not None and node.op_type in (*_PLAIN, *_ROUNDING):
            at = node.input[0]
            output = at if node.op_type in _ROUNDING else output
        if node is not None and node.op_type in _ACTIVATIONS_OF_EIGHT_BITS:
            activation = _ACTIVATIONS_OF_EIGHT_BITS[node.op_type]
            tensor = self._as_float(node, 0)
            return Source(tensor, tensor, False, activation, ACTIVATIONS[activation])
        if node is None or node.op_type not in ACTIVATIONS or node.domain not in ("", "ai.onnx"):
            return None
        return Source(node.input[0], output, False, node.op_type, ACTIVATIONS[node.op_type])

    def _features(self, node: onnx.NodeProto) -> str | None:
        """Of a product with weights the other side, in floats; None of one of two things in the picture."""
        kind = node.op_type
        places = (
            (0, 1) if kind in _LINEAR else _LINEAR_OF_EIGHT_BITS.get(kind) or _LINEAR_OF_INTEGERS.get(kind)
        )
        sides = [place for place in places or () if self.of_picture(node.input[place])]
        if len(sides) != 1:
            return None
        if kind in _LINEAR:
            return node.input[sides[0]]
        if kind in _LINEAR_OF_INTEGERS:
            return self._before_rounding(node.input[sides[0]])
        return self._as_float(node, sides[0])

    def _before_rounding(self, name: str) -> str | None:
        """What a tensor of eight bits was made of; None where it was never anything else."""
        producer = self._producer.get(name)
        return producer.input[0] if producer is not None and producer.op_type in _TO_EIGHT_BITS else None

    def _as_float(self, node: onnx.NodeProto, place: int) -> str:
        """What a node reads in eight bits, as floats; they are added to the graph where they aren't there."""
        name = node.input[place]
        if (before := self._before_rounding(name)) is not None:
            return before
        floats = f"{name}/floats"
        while floats in self._producer:
            floats += "_"
        added = onnx.helper.make_node(
            "DequantizeLinear", [name, node.input[place + 1], node.input[place + 2]], [floats]
        )
        self._graph.node.append(added)
        self._place[floats], self._producer[floats] = len(self._graph.node) - 1, added
        self._of_picture.add(floats)
        return floats

    def _ancestors(self, name: str) -> Iterator[onnx.NodeProto]:
        """What a tensor is computed by, in the graph's order."""
        found: set[int] = set()
        waiting = [name]
        while waiting:
            place = self._place.get(waiting.pop())
            if place is not None and place not in found:
                found.add(place)
                waiting += reads(self._graph.node[place])
        return (self._graph.node[place] for place in sorted(found))

    def _outputs(self) -> str:
        return ", ".join(f"{value.name!r} {described(value)}" for value in self._graph.output)


def _plain(name: str, *, probabilities: bool = False) -> Source:
    return Source(name, name, probabilities, "", "single_label")
