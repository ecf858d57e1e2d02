"""An ONNX file that somebody else made: read, checked, and brought to a form that can be edited."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError
from pathlib import Path

import onnx
from onnx import TensorProto, version_converter

from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.nodes import put_in_order, subgraphs

# The oldest whose operators broadcast as numpy does, and that knows Scan as it is today.
_OLDEST_OPSET = 9
# The first whose weights needn't be inputs too.
_OLDEST_IR = 4
# Of a protobuf message, and so of a file that travels alone.
_MAX_BYTES = 2**31 - 1
# Of sixteen bits; a model's input may be of the first.
_HALF = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
# Operators of eight bits: these, QLinearConv and its like, ConvInteger and its like.
_EIGHT_BITS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QGemm",
    "DynamicQuantizeMatMul",
}
Dims = tuple[int | None, int | None, int | None, int | None]


@dataclass(frozen=True)
class Foreign:
    """A model with one input of pictures.

    Attributes:
        file: where it was read from.
        sha256: of the file, hexadecimal.
        model: its weights inside, none of them an input, its nodes in order, at least opset 9.
        opset: of ONNX's own operators.
        input_name: of its only input.
        input_type: of that, TensorProto.FLOAT or TensorProto.FLOAT16.
        dims: of that, four; None where the graph leaves one open.
    """

    file: Path
    sha256: str
    model: onnx.ModelProto
    opset: int
    input_name: str
    input_type: int
    dims: Dims

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the graph says it is made for."""
        return self.dims[0]

    @property
    def precision(self) -> str:
        """What it was made in, by what is in the graph: "int8", else "fp16" or "bf16", else "fp32"."""
        if _has_eight_bits(self.model.graph):
            return "int8"
        kinds = {self.input_type} | _kinds(self.model.graph)
        return next((name for kind, name in _HALF.items() if kind in kinds), "fp32")


def read_foreign(file: Path) -> Foreign:
    """Read a model; weights in files of their own are taken into it.

    Raises:
        ImportRefused: it isn't an ONNX model, has another input than pictures of floats, or is too large.
    """
    try:
        content = file.read_bytes()
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise ImportRefused(f"{file}: can't be read: {error.strerror}") from error
    except Exception as error:  # protobuf's own errors have no common base
        raise ImportRefused(f"{file}: not an ONNX model: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise ImportRefused(f"{file}: not an ONNX model, or one that computes nothing")
    _take_in_weights(model, file)
    if model.ByteSize() > _MAX_BYTES:
        raise ImportRefused(
            f"{file}: {model.ByteSize():,} bytes with its weights; expected at most 2 GiB, as one file holds"
        )
    model = _modern(model, file)
    try:
        put_in_order(model.graph)
    except CycleError as error:
        raise ImportRefused(f"{file}: not an ONNX model: nodes of its graph wait for each other") from error
    weights = {weight.name for weight in (*model.graph.initializer, *_dense_names(model))}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    name, kind, dims = _picture_input(file, inputs)
    return Foreign(file, hashlib.sha256(content).hexdigest(), model, opset(model), name, kind, dims)


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _take_in_weights(model: onnx.ModelProto, file: Path) -> None:
    try:
        onnx.load_external_data_for_model(model, str(file.parent))
    except Exception as error:  # a file that is missing, too short, or outside of the folder
        raise ImportRefused(
            f"{file}: its weights are in files of their own, which can't be read: {error}; keep them beside "
            "it"
        ) from error
    # Nothing is external any more, also where the field said nothing else.
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ImportRefused(f"{file}: the weights of {tensor.name!r} can't be taken in")


def _modern(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    if opset(model) >= _OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _OLDEST_OPSET)
    except Exception as error:  # the converter raises many kinds
        raise ImportRefused(
            f"{file}: opset {opset(model)} can't be brought to {_OLDEST_OPSET}, the oldest that works here: "
            f"{error}; export it again with a newer one"
        ) from error


def _dense_names(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """The named part of sparse weights."""
    return (weight.values for weight in model.graph.sparse_initializer)


def _has_eight_bits(graph: onnx.GraphProto) -> bool:
    return any(
        node.op_type in _EIGHT_BITS
        or node.op_type.startswith("QLinear")
        or node.op_type.endswith(("Integer", "IntegerToFloat"))
        or any(_has_eight_bits(inner) for inner in subgraphs(node))
        for node in graph.node
    )


def _kinds(graph: onnx.GraphProto) -> set[int]:
    """The types of its weights, and those that it casts to."""
    kinds = {weight.data_type for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast":
            kinds |= {entry.i for entry in node.attribute}
        for inner in subgraphs(node):
            kinds |= _kinds(inner)
    return kinds


def _picture_input(file: Path, inputs: list[onnx.ValueInfoProto]) -> tuple[str, int, Dims]:
    if len(inputs) != 1:
        names = ", ".join(f"{value.name!r} {described(value)}" for value in inputs) or "none"
        raise ImportRefused(
            f"{file}: its inputs are {names}; expected one, of pictures. Of a model of several kinds of "
            "input (CLIP's text beside its images) export the part for images alone"
        )
    (value,) = inputs
    tensor = value.type.tensor_type
    dims = tuple(_dims(value))
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(dims) != 4:
        raise ImportRefused(
            f"{file}: its input {value.name!r} is {described(value)}; expected float32 or float16 of four "
            "dimensions, [batch, 3, height, width] or [batch, height, width, 3]"
        )
    return value.name, tensor.elem_type, (dims[0], dims[1], dims[2], dims[3])


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def described(value: onnx.ValueInfoProto) -> str:
    """An input's or output's type, as people write it: float32 [batch, 3, 224, 224]."""
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return "of a type that isn't a tensor"
    name = TensorProto.DataType.Name(tensor.elem_type).lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    if not tensor.HasField("shape"):
        return name
    return f"{name} [{', '.join(dim.dim_param or str(dim.dim_value or '?') for dim in tensor.shape.dim)}]"
