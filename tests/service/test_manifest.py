"""The manifest is read whole or refused by field, as its schema in protos/ says."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.agreement import Agreement
from service.errors import ManifestError
from service.manifest import MAX_MANIFEST_BYTES, Manifest, Variant, read_manifest

SCHEMA = json.loads((Path(__file__).parents[2] / "protos" / "manifest.schema.json").read_text("utf-8"))

AGREEMENT = {"images": 64, "top1_agreement": 1.0, "max_relative_error": 2e-7, "embedding_cosine": 1.0}
GOOD: dict[str, Any] = {
    "schema_version": 1,
    "name": "digits",
    "version": "3",
    "architecture": "resnet20-cifar",
    "task": "single_label",
    "input": {
        "name": "image",
        "dtype": "uint8",
        "layout": "NHWC",
        "color_order": "RGB",
        "height": 32,
        "width": 24,
    },
    "preprocessing": {
        "resize_short_side": 40,
        "interpolation": "bicubic",
        "antialias": True,
        "normalization": {"in_graph": True, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    },
    "outputs": {
        "logits": {"name": "logits", "dimension": 3},
        "embedding": {"name": "embedding", "dimension": 64, "l2_normalized": True},
    },
    "labels": ["zero", "one", "zwölf"],
    "temperature": 1.5,
    "variants": [
        {
            "file": "model.onnx",
            "sha256": "0" * 64,
            "precision": "fp32",
            "provider": "any",
            "agreement": AGREEMENT,
        },
        {
            "file": "model.int8.onnx",
            "sha256": "f" * 64,
            "precision": "int8",
            "provider": "cpu",
            "agreement": {
                "images": 64,
                "top1_agreement": 0.985,
                "max_relative_error": 0.04,
                "embedding_cosine": 0.99,
                "top1_accuracy": 0.75,
                "reference_top1_accuracy": 0.752,
            },
        },
    ],
    "provenance": {
        "created": "2026-01-01T00:00:00Z",
        "training_data": "digits",
        "recipe": "fovea-train fit",
        "commit": "",
        "licence": "",
    },
}

INT8_AGREEMENT = Agreement(64, 0.985, 0.04, 0.99, 0.75, 0.752)
MISSING = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with the field at `path` (a.b.0.c) replaced, or taken out for MISSING."""
    document = copy.deepcopy(GOOD)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    target: Any = document
    for parent in parents:
        target = target[parent]
    if value is MISSING:
        del target[last]
    else:
        target[last] = value
    return document


def write(root: Path, content: Any, folder: str = "digits/3") -> Path:
    package = root / folder
    package.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (package / "manifest.json").write_bytes(text)
    return package


def schema_accepts(document: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_every_field_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    assert read_manifest(folder) == Manifest(
        folder=folder,
        name="digits",
        version="3",
        architecture="resnet20-cifar",
        task="single_label",
        input_name="image",
        input_height=32,
        input_width=24,
        resize_short_side=40,
        interpolation="bicubic",
        jpeg_scaled_decode=False,
        logits_name="logits",
        embedding_name="embedding",
        embedding_dimension=64,
        labels=("zero", "one", "zwölf"),
        temperature=1.5,
        variants=(
            Variant("model.onnx", "0" * 64, "fp32", "any", Agreement(64, 1.0, 2e-7, 1.0)),
            Variant(
                "model.int8.onnx", "f" * 64, "int8", "cpu", Agreement(64, 0.985, 0.04, 0.99, 0.75, 0.752)
            ),
        ),
        digest=hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
    )
    assert schema_accepts(GOOD)


def test_scaled_decode_is_read(tmp_path: Path) -> None:
    document = changed("preprocessing.jpeg_scaled_decode", True)
    assert schema_accepts(document)
    assert read_manifest(write(tmp_path, document)).jpeg_scaled_decode is True


def test_variants_are_found_by_precision(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    assert manifest.variant("int8").file == "model.int8.onnx"
    with pytest.raises(ManifestError, match="no fp16 variant; the package has fp32, int8"):
        manifest.variant("fp16")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_only_variant_may_be_of_any_precision(precision: str, tmp_path: Path) -> None:
    """As of a model that was imported so."""
    document = changed("variants.0.precision", precision)
    document["variants"] = document["variants"][:1]
    assert schema_accepts(document)
    assert read_manifest(write(tmp_path, document)).variants[0].precision == precision


def test_fingerprints_tell_packages_and_precisions_apart(tmp_path: Path) -> None:
    one = read_manifest(write(tmp_path / "a", GOOD))
    other = read_manifest(write(tmp_path / "b", changed("temperature", 1.25)))
    prints = {manifest.fingerprint(precision) for manifest in (one, other) for precision in ("fp32", "int8")}
    assert len(prints) == 4


def without_classes(**changes: Any) -> dict[str, Any]:
    """GOOD as a model of the task "embedding"."""
    document = copy.deepcopy(GOOD) | {"task": "embedding", "labels": [], "temperature": 1}
    del document["outputs"]["logits"]
    for variant in document["variants"]:
        for name in ("top1_agreement", "top1_accuracy", "reference_top1_accuracy"):
            variant["agreement"].pop(name, None)
    return document | changes


def test_a_model_without_classes_is_read(tmp_path: Path) -> None:
    document = without_classes()
    assert schema_accepts(document)
    manifest = read_manifest(write(tmp_path, document))
    assert (manifest.task, manifest.logits_name, manifest.labels) == ("embedding", None, ())
    assert (manifest.embedding_name, manifest.embedding_dimension) == ("embedding", 64)
    assert manifest.variants[1].agreement == Agreement(64, None, 0.04, 0.99)


def test_decisions_of_several_labels_are_read(tmp_path: Path) -> None:
    document = changed("variants.1.agreement.decision_agreement", 0.975) | {"task": "multi_label"}
    assert schema_accepts(document)
    agreement = read_manifest(write(tmp_path, document)).variants[1].agreement
    assert agreement is not None
    assert agreement.decision_agreement == 0.975
    assert "decision_agreement 0.975 is below 0.98" in agreement.shortfall("int8")
    # A package of before they were recorded is judged by its top-1.
    older = read_manifest(write(tmp_path / "older", GOOD | {"task": "multi_label"})).variants[1].agreement
    assert older is not None
    assert (older.decision_agreement, older.shortfall("int8")) == (None, "")


def test_a_model_without_classes_decides_nothing(tmp_path: Path) -> None:
    document = without_classes()
    document["variants"][1]["agreement"]["decision_agreement"] = 1.0
    assert not schema_accepts(document)
    with pytest.raises(ManifestError, match=r"decision_agreement is 1\.0; expected none"):
        read_manifest(write(tmp_path, document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["zero"]}, r"labels is \[\"zero\"\]; expected \[\], as the task is 'embedding'"),
        ({"labels": None}, "labels is null; expected a list"),
        ({"temperature": 1.5}, "temperature is 1.5; expected 1, as the task is 'embedding'"),
        ({"outputs": GOOD["outputs"]}, r"outputs\.logits is .*; expected none, as the task is 'embedding'"),
        ({"outputs": {}}, r"outputs\.embedding is missing"),
        ({"variants": GOOD["variants"]}, r"variants\[0\]\.agreement\.top1_agreement is 1\.0; expected none"),
        ({"task": "single_label"}, "labels is .*; expected a list of at least one"),
        ({"task": "multi_label", "labels": ["a"]}, r"outputs\.logits is missing"),
    ],
)
def test_what_a_model_without_classes_cannot_have(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    document = without_classes(**changes)
    assert not schema_accepts(document)
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, document))


# Each breaks one field; the error names the field, and service and schema agree that it is broken.
BROKEN: list[tuple[str, Any]] = [
    ("schema_version", 2),
    ("schema_version", 0),
    ("schema_version", "1"),
    ("schema_version", True),
    ("name", ""),
    ("name", "../digits"),
    ("name", "a/b"),
    ("name", ".hidden"),
    ("name", "x" * 129),
    ("name", 7),
    ("version", "0"),
    ("version", "01"),
    ("version", "v1"),
    ("version", "1234567890"),
    ("version", 3),
    ("architecture", ""),
    ("architecture", None),
    ("task", "segmentation"),
    ("task", ["single_label"]),
    ("input", []),
    ("input.name", ""),
    ("input.dtype", "float32"),
    ("input.layout", "NCHW"),
    ("input.color_order", "BGR"),
    ("input.height", 0),
    ("input.height", 4097),
    ("input.width", "24"),
    ("input.width", True),
    ("input.width", 24.5),
    ("preprocessing", None),
    ("preprocessing.resize_short_side", 8193),
    ("preprocessing.resize_short_side", 0),
    ("preprocessing.interpolation", "cubic"),
    ("preprocessing.jpeg_scaled_decode", "true"),
    ("preprocessing.jpeg_scaled_decode", 1),
    ("preprocessing.jpeg_scaled_decode", None),
    ("preprocessing.antialias", False),
    ("preprocessing.antialias", 1),
    ("preprocessing.normalization", "imagenet"),
    ("preprocessing.normalization.in_graph", False),
    ("outputs", {}),
    ("outputs.logits", None),
    ("outputs.logits.name", ""),
    ("outputs.logits.dimension", 0),
    ("outputs.embedding.name", 1),
    ("outputs.embedding.dimension", -1),
    ("outputs.embedding.l2_normalized", False),
    ("labels", []),
    ("labels", "zero one two"),
    ("labels.1", 1),
    ("labels.1", None),
    ("temperature", 0),
    ("temperature", -1.5),
    ("temperature", "1"),
    ("temperature", True),
    ("variants", []),
    ("variants", {}),
    ("variants.0", "model.onnx"),
    ("variants.1.file", "../model.onnx"),
    ("variants.1.file", "/etc/model.onnx"),
    ("variants.1.file", "model.pt"),
    ("variants.1.sha256", "F" * 64),
    ("variants.1.sha256", "f" * 63),
    ("variants.1.precision", "fp64"),
    ("variants.1.provider", "tpu"),
    ("variants.0.agreement", [1.0]),
    ("variants.0.agreement.images", 0),
    ("variants.0.agreement.images", MISSING),
    ("variants.1.agreement.top1_agreement", MISSING),
    ("variants.1.agreement.top1_agreement", 1.5),
    ("variants.1.agreement.top1_agreement", "1"),
    ("variants.1.agreement.top1_agreement", True),
    ("variants.1.agreement.decision_agreement", 1.5),
    ("variants.1.agreement.decision_agreement", None),
    ("variants.1.agreement.max_relative_error", -0.1),
    ("variants.1.agreement.embedding_cosine", -2),
    ("variants.1.agreement.embedding_cosine", MISSING),
    ("variants.1.agreement.top1_accuracy", 98.5),
    ("variants.1.agreement.reference_top1_accuracy", None),
    *(
        (path, MISSING)
        for path in (
            "schema_version",
            "name",
            "version",
            "architecture",
            "task",
            "input",
            "input.name",
            "input.dtype",
            "input.layout",
            "input.color_order",
            "input.height",
            "input.width",
            "preprocessing",
            "preprocessing.resize_short_side",
            "preprocessing.interpolation",
            "preprocessing.antialias",
            "preprocessing.normalization",
            "preprocessing.normalization.in_graph",
            "outputs",
            "outputs.logits",
            "outputs.logits.name",
            "outputs.logits.dimension",
            "outputs.embedding",
            "outputs.embedding.name",
            "outputs.embedding.dimension",
            "outputs.embedding.l2_normalized",
            "labels",
            "temperature",
            "variants",
            "variants.1.file",
            "variants.1.sha256",
            "variants.1.precision",
            "variants.1.provider",
        )
    ),
]


@pytest.mark.parametrize(
    ("path", "value"),
    BROKEN,
    ids=[f"{path}={'missing' if value is MISSING else repr(value)[:20]}" for path, value in BROKEN],
)
def test_a_broken_field_is_named_and_the_schema_agrees(path: str, value: Any, tmp_path: Path) -> None:
    document = changed(path, value)
    assert not schema_accepts(document)
    field = path.split(".")[-1]
    # Of a list, the list is named or the element: "labels", "variants[1]".
    word = path.split(".")[-2] if field.isdigit() else field
    with pytest.raises(ManifestError, match=rf"manifest\.json: .*\b{word}\b") as caught:
        read_manifest(write(tmp_path, document))
    assert "is missing" in str(caught.value) or "; expected" in str(caught.value)


# What a schema can't say, or says more loosely.
ONLY_THE_SERVICE_REFUSES: list[tuple[str, Any, str]] = [
    ("outputs.logits.dimension", 4, r"outputs\.logits\.dimension is 4; expected 3, the number of labels"),
    ("preprocessing.resize_short_side", 31, "resize_short_side is 31; expected a whole number from 32"),
    ("variants.0.precision", "fp16", r"variants\[0\]\.precision is \"fp16\"; expected 'fp32'"),
    ("name", "other", "says it is other/3; its folder is digits/3"),
    ("version", "4", "says it is digits/4; its folder is digits/3"),
    ("temperature", 10**400, "temperature is 1000.*; expected a number above 0"),
    ("input.height", 32.0, r"input\.height is 32\.0; expected a whole number"),
    ("labels.1", "\ud800", "surrogates"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    ONLY_THE_SERVICE_REFUSES,
    ids=[case[2][:30] for case in ONLY_THE_SERVICE_REFUSES],
)
def test_rules_that_the_schema_cannot_say(path: str, value: Any, message: str, tmp_path: Path) -> None:
    document = changed(path, value)
    assert schema_accepts(document)
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, document))


# The record of how the model came about: tools must write it, the server does without.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provenance", MISSING),
        ("provenance.licence", MISSING),
        ("variants.0.agreement", MISSING),
        ("preprocessing.normalization.mean", [0.5]),
        ("preprocessing.normalization.std", MISSING),
        ("comment", "a field that a later writer added"),
    ],
)
def test_the_server_does_without_what_it_does_not_use(path: str, value: Any, tmp_path: Path) -> None:
    document = changed(path, value)
    assert not schema_accepts(document)
    assert read_manifest(write(tmp_path, document)).name == "digits"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task", "multi_label"),
        ("name", "a"),
        ("name", "Digits_v2.1-large"),
        ("version", "999999999"),
        ("input.height", 4096),
        ("preprocessing.resize_short_side", 8192),
        ("preprocessing.interpolation", "nearest"),
        ("preprocessing.jpeg_scaled_decode", False),
        ("labels", ["same", "same", ""]),
        ("temperature", 1e-9),
        ("temperature", 2),
        ("variants.1.precision", "bf16"),
        ("variants.1.provider", "openvino"),
        ("variants.1.file", "model.fp16.onnx"),
        ("variants.1.agreement.top1_accuracy", MISSING),
        ("variants.1.agreement.max_relative_error", 0),
    ],
)
def test_unusual_values_are_accepted_by_both(path: str, value: Any, tmp_path: Path) -> None:
    document = changed(path, value)
    if path == "input.height":
        document["preprocessing"]["resize_short_side"] = value
    assert schema_accepts(document)
    read_manifest(write(tmp_path, document, f"{document['name']}/{document['version']}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", r"the document is \[\]; expected an object"),
        (b"null", "the document is null; expected an object"),
        (json.dumps(changed("temperature", float("nan"))).encode(), "temperature is NaN; expected a number"),
        (json.dumps(changed("temperature", float("inf"))).encode(), "temperature is Infinity; expected"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "more than 16,777,216 bytes; not a manifest"),
    ],
    ids=["empty", "cut short", "binary", "deep", "list", "null", "nan", "infinity", "huge"],
)
def test_what_is_not_a_manifest(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: can't be read: No such file"):
        read_manifest(tmp_path)


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ManifestError, match=r"can't be read: Is a directory"):
        read_manifest(tmp_path)
