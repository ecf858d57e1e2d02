"""Packages without classes, and whitening as a part of the graph."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from service.manifest import read_manifest
from service.preprocess import Preprocessing
from training.errors import ExportError, ParityError
from training.export import Exported, export_package
from training.graph_parts import float_nodes
from training.models import Classifier, architecture
from training.models.heads import with_embedding
from training.normalization import Normalization
from training.parity import check, compare
from training.parity_images import sample_photos
from training.whitening import Whitening, fit_whitening

SCHEMA = json.loads((Path(__file__).parents[2] / "protos" / "manifest.schema.json").read_text())
SPEC = Preprocessing(16, 16, 16)
MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)
IMAGES = sample_photos(SPEC)


def pooled(model: Classifier) -> NDArray[np.float64]:
    with torch.inference_mode():
        features: NDArray[np.float64] = (
            model.features(Normalization(MEAN, STD)(torch.from_numpy(IMAGES))).double().numpy()
        )
    return features


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]  # numpy's


@dataclass(frozen=True)
class Package:
    """One export of a GeM network, with what it was made of."""

    model: Classifier
    whitening: Whitening
    exported: Exported
    manifest: dict[str, Any]


def export(folder: Path, model: Classifier, **options: Any) -> Exported:
    told: dict[str, Any] = {
        "name": "m", "labels": [], "architecture": "resnet20-cifar", "preprocessing": SPEC, "mean": MEAN,
        "std": STD, "images": IMAGES, "task": "embedding",
    }  # fmt: skip
    return export_package(model, repository=folder, **told | options)


def network(projection: int = 24) -> Classifier:
    torch.manual_seed(0)
    model = with_embedding(architecture("resnet20-cifar").build(3), "gem", projection)
    # As a trained network's: statistics that suit what it sees.
    with torch.no_grad():
        for _ in range(20):
            model(Normalization(MEAN, STD)(torch.from_numpy(IMAGES)))
    return model.eval()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    model = network()
    whitening = fit_whitening(torch.from_numpy(pooled(model)), 4)
    exported = export(
        tmp_path_factory.mktemp("models"), model, whitening=whitening, precisions=("fp16",)
    )  # fmt: skip
    return Package(model, whitening, exported, json.loads((exported.folder / "manifest.json").read_text()))


def outputs(package: Package, file: str = "model.onnx") -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(
        str(package.exported.folder / file), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": IMAGES}), strict=True))


def test_a_package_without_classes_keeps_the_contract(package: Package) -> None:
    jsonschema.validate(package.manifest, SCHEMA)
    manifest = read_manifest(package.exported.folder)
    assert manifest.task == "embedding"
    assert manifest.labels == ()
    assert manifest.logits_name is None
    assert manifest.embedding_dimension == 4
    assert package.manifest["outputs"].keys() == {"embedding"}
    assert package.manifest["provenance"]["recipe"].endswith(
        f"embeddings PCA-whitened to 4 of 24 dimensions, fitted on 24 training images, shrinkage "
        f"{package.whitening.shrinkage:.3g}"
    )
    metadata = {
        entry.key: entry.value for entry in onnx.load(package.exported.folder / "model.onnx").metadata_props
    }
    assert metadata["fovea.task"] == "embedding"


def test_the_graph_whitens_what_the_network_gives(package: Package) -> None:
    found = outputs(package)
    assert found.keys() == {"embedding"}
    mean, projection = (part.double().numpy() for part in package.whitening.buffers())
    expected = unit((unit(pooled(package.model)) - mean) @ projection)
    assert found["embedding"].shape == (24, 4)
    assert np.abs(found["embedding"] - expected).max() < 1e-4 * np.abs(expected).max()
    # It does something: plain embeddings all point the same way.
    assert (unit(pooled(package.model)) @ unit(pooled(package.model)).T).mean() > 0.5
    assert abs((expected @ expected.T).mean()) < 0.2


def test_agreement_is_of_the_embeddings(package: Package) -> None:
    agreement = package.exported.agreement
    assert agreement.top1_agreement is None
    assert 0 < agreement.max_relative_error <= 1e-4
    assert agreement.embedding_cosine == pytest.approx(1, abs=1e-6)


def test_whitening_stays_exact_in_float16(package: Package) -> None:
    assert [(made.name, made.failures) for made in package.exported.variants] == [("fp16", ())]
    embedding = outputs(package, "model.fp16.onnx")["embedding"]
    assert (embedding * outputs(package)["embedding"]).sum(axis=1).mean() >= 0.9999
    graph = onnx.load(package.exported.folder / "model.onnx").graph
    exact = {node.op_type for node in graph.node if node.name in float_nodes(graph)}
    assert {"Transpose", "Cast", "Pow", "ReduceMean", "ReduceL2", "Div", "Sub", "MatMul"} <= exact
    assert not exact & {"Conv", "Gemm", "Relu"}


def test_without_classes_only_the_embeddings_way_to_unit_length_stays_exact(
    package: Package, tmp_path: Path
) -> None:
    exported = export(
        tmp_path,
        package.model,
        precisions=("fp16", "int8"),
        calibration_images=np.ascontiguousarray(IMAGES[:, ::-1]),
    )
    assert [(made.name, made.failures) for made in exported.variants] == [("int8", ()), ("fp16", ())]
    jsonschema.validate(json.loads((exported.folder / "manifest.json").read_text()), SCHEMA)
    # The rest really is smaller.
    sizes = {path.name: path.stat().st_size for path in exported.folder.glob("*.onnx")}
    assert sizes["model.fp16.onnx"] < 0.7 * sizes["model.onnx"]
    quantized = onnx.load(exported.folder / "model.int8.onnx").graph
    convolutions = [node for node in quantized.node if node.op_type == "Conv"]
    producer = {output: node.op_type for node in quantized.node for output in node.output}
    assert len(convolutions) == 19
    assert all(producer[node.input[0]] == "DequantizeLinear" for node in convolutions[1:])


def test_powers_of_large_features_do_not_overflow_in_float16(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        last = model.get_submodule("layer3.2.bn2")
        # 300 cubed is beyond float16's 65,504.
        last.weight.fill_(100.0)  # type: ignore[operator]  # a batch normalisation's
        last.bias.fill_(200.0)  # type: ignore[operator]  # likewise
        maps = model.feature_maps(Normalization(MEAN, STD)(torch.from_numpy(IMAGES)))
    assert float(maps.max()) ** 3 > 65504
    (variant,) = export(tmp_path, model, precisions=("fp16",)).variants
    assert variant.failures == ()


def test_a_classifier_can_be_whitened_too(package: Package, tmp_path: Path) -> None:
    exported = export(
        tmp_path, package.model, labels=["a", "b", "c"], task="single_label", whitening=package.whitening
    )
    manifest = read_manifest(exported.folder)
    assert (manifest.task, manifest.labels) == ("single_label", ("a", "b", "c"))
    assert manifest.embedding_dimension == 4
    found = outputs(Package(package.model, package.whitening, exported, {}))
    assert np.allclose(found["embedding"], outputs(package)["embedding"], atol=1e-5)
    with torch.inference_mode():
        logits = package.model(Normalization(MEAN, STD)(torch.from_numpy(IMAGES))).numpy()
    assert np.abs(found["logits"] - logits).max() < 1e-4 * np.abs(logits).max()


def test_an_embedding_that_disagrees_is_found(package: Package) -> None:
    file = package.exported.folder / "model.onnx"
    compared = package.model, Normalization(MEAN, STD), file, IMAGES
    check(compare(*compared, whitening=package.whitening, classes=False))
    other = Whitening(package.whitening.mean, package.whitening.projection * torch.linspace(1, 1.01, 4))
    with pytest.raises(ParityError):
        check(compare(*compared, whitening=other, classes=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b", "c"]}, "there are 3 labels and temperature 1 for the task 'embedding'"),
        ({"temperature": 2.0}, "there are 0 labels and temperature 2 for the task 'embedding'"),
        (
            {"task": "retrieval"},
            "the task is 'retrieval'; expected one of single_label, multi_",
        ),
        (
            {"whitening": Whitening(torch.zeros(5), torch.zeros(5, 2))},
            "the whitening is of 5 dimensions; expected 24",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "models", network(), **options)
    assert not (tmp_path / "models").exists()
