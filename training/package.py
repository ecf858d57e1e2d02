"""The model package: its manifest, and how its folder comes into a repository whole or not at all.

The contract is protos/manifest.schema.json.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.preprocess import Preprocessing
from training.commit import commit
from training.errors import ExportError
from training.graph import EMBEDDING, INPUT, LOGITS
from training.models import Classifier
from training.parity import Agreement

SCHEMA_VERSION = 1
MAX_VERSION = 999_999_999
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


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
) -> dict[str, Any]:
    """The manifest but for its variants, which are known only when the file is."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": str(version),
        "architecture": architecture,
        "task": "single_label",
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
            "normalization": {"in_graph": True, "mean": list(mean), "std": list(std)},
        },
        "outputs": {
            "logits": {"name": LOGITS, "dimension": len(labels)},
            "embedding": {
                "name": EMBEDDING,
                "dimension": model.embedding_dimension,
                "l2_normalized": True,
            },
        },
        "labels": list(labels),
        "temperature": 1.0,
        "provenance": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_data": provenance.training_data,
            "recipe": provenance.recipe,
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
        "agreement": vars(agreement).copy(),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `folder`/manifest.json."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def check_name(name: str) -> None:
    """Raises ExportError where a model can't be called that."""
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"the model's name is {name!r}; expected 1 to 128 letters, digits, '_', '-' and '.', starting "
            "with a letter or digit"
        )


def next_version(repository: Path, name: str) -> int:
    """One above the highest version there is; 1 for a new model."""
    folder = repository / name
    if not folder.is_dir():
        return 1
    return 1 + max(
        (int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name)), default=0
    )


@contextmanager
def staged(repository: Path, name: str, version: int) -> Iterator[Path]:
    """A hidden folder to write a package into, renamed to <repository>/<name>/<version> on leaving.

    An error inside removes it. A kill leaves it, hidden, where no server looks for models.

    Raises:
        ExportError: that version is there already, or the repository can't be written to.
    """
    target = repository / name / str(version)
    _refuse_existing(target)
    # mkdir, not mkdtemp, whose folders no other user could read.
    temporary = repository / f".{name}-{version}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"can't write to the model repository {repository}: {error.strerror}") from error
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        target.parent.mkdir(exist_ok=True)
        _refuse_existing(target)
        try:
            temporary.rename(target)
        except OSError as error:
            raise ExportError(f"can't publish {target}: {error.strerror}; nothing was published") from error
        _sync(target.parent)
        _sync(repository)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise ExportError(
            f"{target} is there already, and published versions never change; choose another --version"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
