"""An imported model's manifest, and how its folder comes into a repository: whole or not at all."""

import errno
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from service.agreement import Agreement
from service.cli.import_model.errors import ImportRefused
from service.cli.import_model.packaged import Packaged
from service.cli.import_model.recipe import Recipe
from service.manifest import SCHEMA_VERSION
from service.preprocess import Preprocessing
from service.retrieval.whole_file import flush

MODEL_FILE = "model.onnx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Facts:
    """What the manifest says beyond the graph.

    Attributes:
        name, version: of the model.
        architecture: for the record.
        labels: in the order of the logits; none where there are no classes.
        preprocessing: what the service does to an image before the graph.
        origin: which file this was, and what was taken of it.
        training_data, licence: of the weights; empty where unknown.
        precision: what the model computes in.
    """

    name: str
    version: int
    architecture: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    origin: str
    training_data: str
    licence: str
    precision: str


def document(facts: Facts, recipe: Recipe, packaged: Packaged) -> dict[str, Any]:
    """The manifest but for its variants, which are known only when the file is."""
    mean, std = recipe.pixels.recorded
    outputs: dict[str, Any] = {
        "embedding": {"name": packaged.embedding, "dimension": recipe.dimension, "l2_normalized": True}
    }
    if packaged.logits is not None:
        outputs = {"logits": {"name": packaged.logits, "dimension": recipe.classes}, **outputs}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": facts.name,
        "version": str(facts.version),
        "architecture": facts.architecture,
        "task": recipe.task,
        "input": {
            "name": packaged.image,
            "dtype": "uint8",
            "layout": "NHWC",
            "color_order": "RGB",
            "height": recipe.height,
            "width": recipe.width,
        },
        "preprocessing": {
            "resize_short_side": facts.preprocessing.resize_short_side,
            "interpolation": facts.preprocessing.interpolation,
            "antialias": True,
            "jpeg_scaled_decode": facts.preprocessing.jpeg_scaled_decode,
            "normalization": {"in_graph": True, "mean": mean, "std": std},
        },
        "outputs": outputs,
        "labels": list(facts.labels),
        "temperature": 1.0,
        "provenance": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "training_data": facts.training_data,
            "recipe": facts.origin,
            "commit": "",
            "licence": facts.licence,
            "metrics": {},
        },
    }


def write_model(folder: Path, packaged: Packaged, facts: dict[str, Any]) -> None:
    """Write the model, with the manifest's facts inside, so that one file can travel alone.

    Raises:
        ImportRefused: it is larger than one file may be.
        OSError: it can't be written.
    """
    kept = ("name", "version", "architecture", "task", "schema_version")
    metadata = {f"fovea.{key}": str(facts[key]) for key in kept}
    metadata["fovea.manifest"] = json.dumps(facts, ensure_ascii=False)
    onnx.helper.set_model_props(packaged.model, metadata)
    try:
        content = packaged.model.SerializeToString()
    except ValueError as error:
        raise ImportRefused(f"the packaged model is larger than one file may be, 2 GiB: {error}") from error
    (folder / MODEL_FILE).write_bytes(content)


def write_manifest(folder: Path, facts: dict[str, Any], precision: str, agreement: Agreement | None) -> None:
    """Write the manifest of the model in the folder; its agreement may not be known yet.

    Raises:
        OSError: it can't be written.
    """
    variant: dict[str, Any] = {
        "file": MODEL_FILE,
        "sha256": hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        "precision": precision,
        "provider": "any",
    }
    if agreement is not None:
        variant["agreement"] = {key: value for key, value in asdict(agreement).items() if value is not None}
    text = json.dumps(facts | {"variants": [variant]}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def check_name(name: str) -> None:
    """Raises ImportRefused where a model can't be called that."""
    if not _NAME.fullmatch(name):
        raise ImportRefused(
            f"the model's name is {name!r}; expected 1 to 128 letters, digits, '_', '-' and '.', starting "
            "with a letter or digit"
        )


def next_version(repository: Path, name: str) -> int:
    """One above the highest version there is; 1 for a new model.

    Raises:
        ImportRefused: <repository>/<name> can't be read, or isn't a folder.
    """
    folder = repository / name
    try:
        return 1 + max(
            (int(each.name) for each in folder.iterdir() if _VERSION.fullmatch(each.name)), default=0
        )
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise ImportRefused(f"{folder}: can't be read as a folder of versions: {error.strerror}") from error


@contextmanager
def staged(repository: Path, name: str, version: int) -> Iterator[Path]:
    """A hidden <name>/<version> to write a package into, moved into the repository on leaving.

    An error inside removes it. A kill leaves it, hidden, where no server looks for models.

    Raises:
        ImportRefused: the version is there already, or the repository can't be written to.
    """
    target = repository / name / str(version)
    if target.exists():
        raise _taken(target)
    # mkdir, not mkdtemp, whose folders no other user could read.
    temporary = repository / f".import-{secrets.token_hex(4)}"
    folder = temporary / name / str(version)
    try:
        folder.mkdir(parents=True)
        yield folder
        for path in (*folder.iterdir(), folder):
            flush(path)
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        flush(target.parent)
        flush(repository)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # somebody else was faster by a hair
            raise _taken(target) from error
        raise ImportRefused(f"can't publish {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _taken(target: Path) -> ImportRefused:
    return ImportRefused(
        f"{target} is there already, and published versions never change; choose another --version"
    )
