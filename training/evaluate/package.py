"""A model package, through ONNX Runtime's CPU kernels."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from service.preprocess import Preprocessing
from training.errors import TargetError
from training.evaluate.local import LocalTarget, NetworkOutputs, Pixels
from training.runtime import cpu_session, only_as_written

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Whose files ONNX Runtime's CPU kernels compute as they are meant; the bf16 of an export is OpenVINO's doing.
_PROVIDERS = ("any", "cpu", "cuda")


class PackageTarget(LocalTarget):
    """Asks the ONNX file of a package.

    Args:
        folder: <repository>/<name>/<version>.
        precision: one of `PRECISIONS`; None is that of the first file: fp32, but where the model was
            imported in another one and has nothing else.
        batch_size: pictures at once.

    Attributes:
        manifest: manifest.json, as it stands.

    Raises:
        TargetError: the package is incomplete or broken, or hasn't that precision.
        ExportError: ONNX Runtime isn't installed.
    """

    kind: ClassVar[str] = "package"
    temperature: float = 1.0

    def __init__(self, folder: Path, precision: str | None = None, batch_size: int = 64) -> None:
        self.manifest = _read(folder)
        self.batch_size = batch_size
        try:
            self._take(folder, precision)
        except (KeyError, TypeError, ValueError) as error:
            raise TargetError(
                f"{folder / 'manifest.json'}: not the manifest of a package: {error!r}"
            ) from error

    def _take(self, folder: Path, asked: str | None) -> None:
        manifest = self.manifest
        self.name = str(folder)
        self.task, self.labels = str(manifest["task"]), tuple(map(str, manifest["labels"]))
        self.temperature = float(manifest["temperature"])
        spec, inputs, outputs = manifest["preprocessing"], manifest["input"], manifest["outputs"]
        self.preprocessing = Preprocessing(
            resize_short_side=spec["resize_short_side"],
            crop_height=inputs["height"],
            crop_width=inputs["width"],
            interpolation=spec["interpolation"],
            jpeg_scaled_decode=spec.get("jpeg_scaled_decode", False),
        )
        self._input = str(inputs["name"])
        self._outputs = [str(outputs[name]["name"]) for name in ("embedding", "logits") if name in outputs]
        precision = str(manifest["variants"][0]["precision"]) if asked is None else asked
        file, provider = _variant_file(folder, manifest["variants"], precision)
        self._session = cpu_session(str(file), as_written=only_as_written(precision, provider))
        self.facts = {
            "model": f"{manifest['name']}, version {manifest['version']}",
            "architecture": str(manifest["architecture"]),
            "engine": f"ONNX Runtime on the CPU, {file.name}",
            "precision": precision,
        }

    def run(self, pixels: Pixels) -> NetworkOutputs:
        """Logits, where the package has classes, and embeddings."""
        embeddings, *logits = self._session.run(self._outputs, {self._input: pixels})
        return (logits[0] if logits else None), embeddings


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(
            f"{path}: can't be read: {error.strerror}; expected a package, <repository>/<model>/<version>"
        ) from error
    except ValueError as error:
        raise TargetError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise TargetError(f"{path}: holds {type(document).__name__}; expected an object")
    return document


def _variant_file(folder: Path, variants: list[dict[str, Any]], precision: str) -> tuple[Path, str]:
    """The variant's file, unchanged since it was published, and the provider that it is for."""
    usable = [one for one in variants if one["provider"] in _PROVIDERS and one["precision"] in PRECISIONS]
    fitting = [one for one in usable if one["precision"] == precision]
    # int8 for GPUs runs here too, but isn't what the processor is served with.
    fitting.sort(key=lambda one: one["provider"] == "cuda" and precision == "int8")
    if not fitting:
        there = ", ".join(sorted({one["precision"] for one in usable}))
        raise TargetError(f"{folder}: no {precision} that can be evaluated here; expected {there}")
    file: Path = folder / str(fitting[0]["file"])
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise TargetError(f"{file}: can't be read: {error.strerror}") from error
    if digest != fitting[0]["sha256"]:
        raise TargetError(f"{file}: SHA-256 is {digest}; the manifest says {fitting[0]['sha256']}")
    return file, str(fitting[0]["provider"])
