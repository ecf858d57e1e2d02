"""A network → the ONNX graph that the service runs."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from training.errors import ExportError
from training.models import Classifier
from training.normalization import Normalization
from training.whitening import Whitening

INPUT, LOGITS, EMBEDDING = "image", "logits", "embedding"
# Small enough to leave every real vector alone, large enough that a zero vector stays zero.
_EPSILON = 1e-12
_OPSET = 18


class Served(nn.Module):
    """Pixels in, logits and unit-length embeddings out.

    Args:
        model: its features and head.
        normalization: goes before it.
        whitening: of the embeddings, which have unit length before it and again behind it; None for none.
        classes: whether there are logits.
    """

    def __init__(
        self,
        model: Classifier,
        normalization: Normalization,
        whitening: Whitening | None = None,
        classes: bool = True,
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.model = model
        self.whitening = whitening
        self.outputs = [LOGITS, EMBEDDING] if classes else [EMBEDDING]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Uint8 [batch, height, width, 3] → float32 [batch, classes], if any, and [batch, dimension]."""
        pooled = self.model.features(self.normalization(image))
        embedding = _unit(pooled)
        if self.whitening is not None:
            embedding = _unit(self.whitening(embedding))
        return (self.model.classify(pooled), embedding) if LOGITS in self.outputs else (embedding,)


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    unit: Tensor = vectors / length.clamp_min(_EPSILON)
    return unit


def write_graph(served: Served, height: int, width: int, facts: Mapping[str, Any], path: Path) -> None:
    """Export to one ONNX file, with the batch dimension left open.

    Args:
        served: on the CPU, in evaluation mode.
        height, width: of the input.
        facts: the manifest's, kept in the file's metadata under `fovea.manifest`, so that the file can
            travel alone.
        path: of the file.

    Raises:
        ExportError: PyTorch can't export the network.
        OSError: the file can't be written.
        ImportError: a package that the exporter needs isn't installed.
    """
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    try:
        with _quiet():
            torch.onnx.export(
                served,
                (example,),
                path,
                input_names=[INPUT],
                output_names=served.outputs,
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                opset_version=_OPSET,
                verbose=False,
            )
    except (OSError, ImportError):  # a full disk, or a package that isn't installed: told by the callers
        raise
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(
            f"PyTorch can't export {type(served.model).__name__} to ONNX: {_first_line(error)}"
        ) from error
    graph = onnx.load(path)
    _forget_sources(graph)
    simple = ("name", "version", "architecture", "task", "schema_version")
    metadata = {f"fovea.{key}": str(facts[key]) for key in simple}
    metadata["fovea.manifest"] = json.dumps(facts, ensure_ascii=False)
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def copy_metadata(source: Path, target: Path) -> None:
    """Give a file made from an exported one the same metadata, and check it.

    Raises:
        OSError: a file can't be read or written.
    """
    kept = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    graph = onnx.load(target)
    _forget_sources(graph)
    onnx.helper.set_model_props(graph, kept)
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def _forget_sources(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces with paths of this machine."""
    parts = graph.graph
    del graph.metadata_props[:], parts.metadata_props[:]
    for node in parts.node:
        del node.metadata_props[:]
    for weight in parts.initializer:
        del weight.metadata_props[:]
    for value in (*parts.value_info, *parts.input, *parts.output):
        del value.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says that no user can act on, and nothing else."""
    # It regrets at warning level that torchvision, which no network here needs, isn't installed.
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch's own use, inside copyreg, of a class that PyTorch deprecates.
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        registry.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
