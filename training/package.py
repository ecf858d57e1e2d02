"""The model package's manifest. The contract is protos/manifest.schema.json."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.preprocess import Preprocessing
from training.agreement import Agreement
from training.commit import commit
from training.graph import EMBEDDING, INPUT, LOGITS
from training.models import Classifier
from training.whitening import Whitening

SCHEMA_VERSION = 1
# Of a model without classes.
EMBEDDING_TASK = "embedding"
MULTI_LABEL_TASK = "multi_label"
TASKS = ("single_label", MULTI_LABEL_TASK, EMBEDDING_TASK)


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from.

    Attributes:
        training_data: what they were trained on.
        recipe: the command or recipe that made them.
        licence: theirs; empty where unknown.
        metrics: scores at training time, by name.
    """

    training_data: str = ""
    recipe: str = ""
    licence: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def facts(
    model: Classifier,
    *,
    name: str,
    version: int,
    architecture: str,
    preprocessing: Preprocessing,
    mean: Sequence[float],
    std: Sequence[float],
    labels: Sequence[str],
    provenance: Provenance,
    temperature: float = 1.0,
    task: str = "single_label",
    whitening: Whitening | None = None,
) -> dict[str, Any]:
    """The manifest but for its variants, which are known only when the file is."""
    embedding: dict[str, Any] = {
        "name": EMBEDDING,
        "dimension": model.embedding_dimension if whitening is None else whitening.dimension,
        "l2_normalized": True,
    }
    outputs = {"logits": {"name": LOGITS, "dimension": len(labels)}} if task != EMBEDDING_TASK else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": str(version),
        "architecture": architecture,
        "task": task,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "layout": "NHWC",
            "color_order": "RGB",
            "height": preprocessing.crop_height,
            "width": preprocessing.crop_width,
        },
        "preprocessing": {
            "resize_short_side": preprocessing.resize_short_side,
            "interpolation": preprocessing.interpolation,
            "antialias": True,
            "jpeg_scaled_decode": preprocessing.jpeg_scaled_decode,
            "normalization": {"in_graph": True, "mean": list(mean), "std": list(std)},
        },
        "outputs": outputs | {"embedding": embedding},
        "labels": list(labels),
        "temperature": temperature,
        "provenance": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_data": provenance.training_data,
            "recipe": provenance.recipe + ("" if whitening is None else f"; {whitening.described()}"),
            "commit": commit(),
            "licence": provenance.licence,
            "metrics": dict(provenance.metrics),
        },
    }


def variant(file: Path, precision: str, provider: str, agreement: Agreement) -> dict[str, Any]:
    """One entry of the manifest's variants."""
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "precision": precision,
        "provider": provider,
        "agreement": agreement.recorded(),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `folder`/manifest.json."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
