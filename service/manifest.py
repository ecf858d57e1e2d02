"""The model package's manifest: read, checked, and turned into values.

The contract is protos/manifest.schema.json; a test holds the two against each other.
"""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.agreement import Agreement
from service.errors import ManifestError

SCHEMA_VERSION = 1
# A model of the task "embedding" has no classes.
TASKS = ("single_label", "multi_label", "embedding")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
PROVIDERS = ("any", "cpu", "cuda", "tensorrt", "openvino")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
# A manifest of ImageNet-21k's labels has under 1 MB; anything above is not one.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_AS_EMBEDDING = "as the task is 'embedding'"


@dataclass(frozen=True)
class Variant:
    """One ONNX file of the package.

    Attributes:
        file: its name, beside the manifest.
        sha256: of its bytes, hexadecimal.
        precision: one of `PRECISIONS`.
        provider: the execution provider it was made for, one of `PROVIDERS`.
        agreement: with fp32, as measured; None where the package doesn't say.
    """

    file: str
    sha256: str
    precision: str
    provider: str
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Manifest:
    """What a model package says about itself; see protos/manifest.schema.json for each field.

    Attributes:
        logits_name: None for the task "embedding", which has no labels either.
    """

    folder: Path
    name: str
    version: str
    architecture: str
    task: str
    input_name: str
    input_height: int
    input_width: int
    resize_short_side: int
    interpolation: str
    jpeg_scaled_decode: bool
    logits_name: str | None
    embedding_name: str
    embedding_dimension: int
    labels: tuple[str, ...]
    temperature: float
    variants: tuple[Variant, ...]
    digest: str

    def variant(self, precision: str) -> Variant:
        """The file of that precision.

        Raises:
            ManifestError: there is none; lists those there are.
        """
        for variant in self.variants:
            if variant.precision == precision:
                return variant
        there = ", ".join(variant.precision for variant in self.variants)
        raise ManifestError(f"{self.folder}: no {precision} variant; the package has {there}")

    def fingerprint(self, precision: str) -> str:
        """Names what makes an embedding: this package and one precision of it."""
        return f"{self.digest}:{precision}"


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Args:
        folder: <repository>/<model>/<version>.

    Raises:
        ManifestError: the file is missing or broken, names the field and what was expected, or the
            folder isn't called what the manifest says.
    """
    path = folder / "manifest.json"
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path}: more than {MAX_MANIFEST_BYTES:,} bytes; not a manifest")
        content = path.read_bytes()
        document = json.loads(content)
        # Lone surrogates, which only an escape can bring in, couldn't be sent to any caller.
        json.dumps(document, ensure_ascii=False).encode()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON: {error}") from error
    manifest = _parse(_Reader(path, "", document), folder, hashlib.sha256(content).hexdigest())
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise ManifestError(
            f"{path}: says it is {manifest.name}/{manifest.version}; its folder is "
            f"{folder.parent.name}/{folder.name}"
        )
    return manifest


def _parse(root: "_Reader", folder: Path, digest: str) -> Manifest:
    version = root.integer("schema_version", 1)
    if version != SCHEMA_VERSION:
        raise root.error("schema_version", version, f"{SCHEMA_VERSION}, the one this server reads")
    inputs = root.object("input")
    for name, expected in (("dtype", "uint8"), ("layout", "NHWC"), ("color_order", "RGB")):
        inputs.choice(name, (expected,))
    preprocessing = root.object("preprocessing")
    preprocessing.boolean("antialias", expected=True)
    preprocessing.object("normalization").boolean("in_graph", expected=True)
    task = root.choice("task", TASKS)
    outputs = root.object("outputs")
    embedding = outputs.object("embedding")
    embedding.boolean("l2_normalized", expected=True)
    labels, temperature = root.strings("labels", least=0), root.positive("temperature")
    logits_name = None
    if task == "embedding":
        _check_without_classes(root, outputs, labels, temperature)
    elif not labels:
        raise root.error("labels", [], "a list of at least one")
    else:
        logits_name = _parse_logits(outputs.object("logits"), labels)
    height, width = inputs.integer("height", 1, 4096), inputs.integer("width", 1, 4096)
    variants = tuple(_parse_variant(reader, task) for reader in root.objects("variants"))
    # A model that was imported may be there in the precision that it was made in alone.
    if variants[0].precision != "fp32" and len(variants) > 1:
        raise root.error("variants[0].precision", variants[0].precision, "'fp32'")
    return Manifest(
        folder=folder,
        name=root.matching("name", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
        version=root.matching("version", r"[1-9][0-9]{0,8}"),
        architecture=root.matching("architecture", r".+"),
        task=task,
        input_name=inputs.matching("name", r".+"),
        input_height=height,
        input_width=width,
        resize_short_side=preprocessing.integer("resize_short_side", max(height, width), 8192),
        interpolation=preprocessing.choice("interpolation", INTERPOLATIONS),
        jpeg_scaled_decode=preprocessing.flag("jpeg_scaled_decode"),
        logits_name=logits_name,
        embedding_name=embedding.matching("name", r".+"),
        embedding_dimension=embedding.integer("dimension", 1),
        labels=labels,
        temperature=temperature,
        variants=variants,
        digest=digest,
    )


def _parse_logits(logits: "_Reader", labels: tuple[str, ...]) -> str:
    classes = logits.integer("dimension", 1)
    if classes != len(labels):
        raise logits.error("dimension", classes, f"{len(labels)}, the number of labels")
    return logits.matching("name", r".+")


def _check_without_classes(
    root: "_Reader", outputs: "_Reader", labels: tuple[str, ...], temperature: float
) -> None:
    outputs.without("logits")
    if labels:
        raise root.error("labels", list(labels), f"[], {_AS_EMBEDDING}")
    if temperature != 1:
        raise root.error("temperature", temperature, f"1, {_AS_EMBEDDING}")


def _parse_variant(reader: "_Reader", task: str) -> Variant:
    return Variant(
        file=reader.matching("file", r"[A-Za-z0-9][A-Za-z0-9_.-]*\.onnx"),
        sha256=reader.matching("sha256", r"[0-9a-f]{64}"),
        precision=reader.choice("precision", PRECISIONS),
        provider=reader.choice("provider", PROVIDERS),
        agreement=_parse_agreement(reader.object("agreement"), task) if reader.has("agreement") else None,
    )


def _parse_agreement(reader: "_Reader", task: str) -> Agreement:
    of_classes = ("top1_agreement", "top1_accuracy", "reference_top1_accuracy", "decision_agreement")
    if task == "embedding":
        reader.without(*of_classes)
    return Agreement(
        images=reader.integer("images", 1),
        top1_agreement=None if task == "embedding" else reader.number("top1_agreement", 0, 1),
        max_relative_error=reader.number("max_relative_error", 0, sys.float_info.max),
        embedding_cosine=reader.number("embedding_cosine", -1, 1.000001),
        **{name: reader.number(name, 0, 1) for name in of_classes[1:] if reader.has(name)},
    )


class _Reader:
    """One JSON object of the manifest, read field by field with errors that name the path."""

    def __init__(self, path: Path, where: str, value: Any) -> None:
        self._path, self._where = path, where
        if not isinstance(value, dict):
            raise ManifestError(f"{path}: {where or 'the document'} is {_short(value)}; expected an object")
        self._fields = value

    def error(self, name: str, value: Any, expected: str) -> ManifestError:
        return ManifestError(f"{self._path}: {self._where}{name} is {_short(value)}; expected {expected}")

    def _get(self, name: str) -> Any:
        if name not in self._fields:
            raise ManifestError(f"{self._path}: {self._where}{name} is missing")
        return self._fields[name]

    def has(self, name: str) -> bool:
        return name in self._fields

    def without(self, *names: str) -> None:
        """Refuse what a model without classes can't have."""
        for name in names:
            if name in self._fields:
                raise self.error(name, self._fields[name], f"none, {_AS_EMBEDDING}")

    def object(self, name: str) -> "_Reader":
        return _Reader(self._path, f"{self._where}{name}.", self._get(name))

    def objects(self, name: str) -> "list[_Reader]":
        return [
            _Reader(self._path, f"{self._where}{name}[{i}].", item) for i, item in enumerate(self._list(name))
        ]

    def strings(self, name: str, least: int = 1) -> tuple[str, ...]:
        items = self._list(name, least)
        for item in items:
            if not isinstance(item, str):
                raise self.error(name, item, "strings")
        return tuple(items)

    def _list(self, name: str, least: int = 1) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list) or len(value) < least:
            raise self.error(name, value, "a list of at least one" if least else "a list")
        return value

    def matching(self, name: str, pattern: str) -> str:
        value = self._get(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            raise self.error(name, value, f"a string like {pattern}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._get(name)
        if value not in choices:
            raise self.error(name, value, " or ".join(repr(choice) for choice in choices))
        return str(value)

    def integer(self, name: str, low: int, high: int = 2**31) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, value, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value = self._get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def positive(self, name: str) -> float:
        value = self._get(name)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not 0 < value <= sys.float_info.max
        ):
            raise self.error(name, value, "a number above 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; false where it is missing."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise self.error(name, value, "true or false")
        return value

    def boolean(self, name: str, *, expected: bool) -> None:
        value = self._get(name)
        if value is not expected:
            raise self.error(name, value, str(expected).lower())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
