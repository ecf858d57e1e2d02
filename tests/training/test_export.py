"""fovea-train export: what is published, and that nothing wrong is."""

import hashlib
import json
import os
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import numpy_helper

from service.manifest import read_manifest
from service.preprocess import Preprocessing
from tests.training.conftest import Trained
from tests.training.pictures import CLASSES, write_class_folders
from training import export
from training.agreement import Agreement
from training.checkpoint import load_checkpoint, save_checkpoint
from training.cli import main
from training.cli_export import _serving
from training.errors import ExportError, ParityError
from training.export import export_package
from training.graph import Served
from training.models import Classifier, architecture
from training.normalization import Normalization
from training.parity import check, compare
from training.parity_images import folder_images, sample_photos
from training.publish import next_version, staged
from training.run_export import newest_run
from training.weights import load_weights
from training.weights_export import read_labels

SCHEMA = json.loads((Path(__file__).parents[2] / "protos" / "manifest.schema.json").read_text())
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def best_model(trained: Trained) -> Classifier:
    model = architecture("resnet20-cifar").build(3)
    load_weights(model, load_checkpoint(trained.run / "checkpoints" / "best.pt").model, "best.pt")
    return model.eval()


def run_onnx(file: Path, images: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits, embedding = session.run(["logits", "embedding"], {"image": images})
    return logits, embedding


def test_the_manifest_keeps_the_contract(trained: Trained) -> None:
    document = json.loads((trained.package / "manifest.json").read_text())
    jsonschema.validate(document, SCHEMA)
    manifest = read_manifest(trained.package)
    assert (manifest.name, manifest.version) == ("lights-resnet20-cifar", "1")
    assert manifest.labels == CLASSES
    assert (manifest.input_height, manifest.input_width, manifest.resize_short_side) == (8, 8, 10)
    assert manifest.embedding_dimension == 64
    (variant,) = manifest.variants
    assert variant.sha256 == hashlib.sha256((trained.package / "model.onnx").read_bytes()).hexdigest()
    agreement = document["variants"][0]["agreement"]
    assert agreement["images"] == 9
    assert agreement["top1_agreement"] == 1
    assert 0 < agreement["max_relative_error"] <= 1e-4
    assert agreement["embedding_cosine"] == pytest.approx(1, abs=1e-6)
    summary = json.loads((trained.run / "summary.json").read_text())
    assert document["provenance"]["metrics"]["test_accuracy"] == summary["test_accuracy"]
    assert document["provenance"]["licence"] == "CC0-1.0"
    assert document["provenance"]["training_data"].startswith("lights: 42 images; of each class 15% are test")


def test_the_file_alone_says_the_same(trained: Trained) -> None:
    document = json.loads((trained.package / "manifest.json").read_text())
    graph = onnx.load(trained.package / "model.onnx")
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    del document["variants"]
    assert json.loads(metadata["fovea.manifest"]) == document
    assert metadata["fovea.name"] == "lights-resnet20-cifar"
    assert metadata["fovea.version"] == "1"


def test_the_file_holds_no_paths_of_this_machine(trained: Trained) -> None:
    content = (trained.package / "model.onnx").read_bytes()
    assert b"graph.py" not in content
    assert b"site-packages" not in content


def test_the_folder_holds_the_package_and_everyone_may_read_it(trained: Trained) -> None:
    assert {path.name for path in trained.package.iterdir()} == {
        "manifest.json", "model.onnx", "MODEL_CARD.md",
    }  # fmt: skip
    repository = trained.package.parents[1]
    assert [path.name for path in repository.iterdir()] == ["lights-resnet20-cifar"]
    assert trained.package.stat().st_mode & 0o777 == repository.stat().st_mode & 0o777


def test_the_command_says_what_agreed_and_what_comes_next(trained: Trained) -> None:
    said = trained.export.output
    assert re.search(r"max\|Δ\| ÷ max\|reference\| [\d.e-]+ .*same top-1 100\.00% .* on 9 images", said)
    assert f"published models/{trained.package.parent.name}/1" in said
    assert "next: fovea serve --model-repository models\n" in said
    assert "Warning" not in said
    assert trained.export.stderr == ""


def test_of_several_models_the_next_command_names_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "new" / "1").mkdir(parents=True)
    assert _serving(tmp_path, "new") == f"fovea serve --model-repository {tmp_path}"
    (tmp_path / "old" / "1").mkdir(parents=True)
    assert _serving(tmp_path, "new") == f"fovea serve --model-repository {tmp_path} --default-model new"


def test_the_command_says_which_run_and_epoch(trained: Trained) -> None:
    best = load_checkpoint(trained.run / "checkpoints" / "best.pt")
    run = f"runs/{trained.run.name}"
    said = f"exporting {run}: the best checkpoint, epoch {best.epoch} of 8, val accuracy "
    assert f"{said}{best.val_accuracy:.2%}\n" in trained.export.output
    assert "interrupted" not in trained.export.output


def test_the_command_says_that_a_run_was_interrupted(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, trained.package / "model.onnx", {})
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    (run / "summary.json").unlink()
    last = load_checkpoint(run / "checkpoints" / "last.pt")
    save_checkpoint(run / "checkpoints" / "best.pt", replace(last, epoch=3))
    result = command("--run", run, "--model-repository", tmp_path / "models")
    assert result.exit_code == 0, result.output
    assert f"exporting {run}: the best checkpoint, epoch 3 of 8" in result.output
    assert "this run was interrupted, or is still going on" in result.output
    document = json.loads((tmp_path / "models/lights-resnet20-cifar/1/manifest.json").read_text())
    assert "test_accuracy" not in document["provenance"]["metrics"]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_graph_computes_what_pytorch_computes(trained: Trained, batch: int) -> None:
    images = np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)
    logits, embedding = run_onnx(trained.package / "model.onnx", images)
    model, pixels = best_model(trained), torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    normalized = (pixels - torch.tensor(IMAGENET[0]).view(3, 1, 1)) / torch.tensor(IMAGENET[1]).view(3, 1, 1)
    with torch.inference_mode():
        expected = model(normalized).numpy()
        pooled = model.features(normalized).numpy()
    assert logits.dtype == embedding.dtype == np.float32
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert np.allclose(embedding, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-4)


def test_a_zero_vector_has_a_finite_embedding() -> None:
    model = architecture("resnet20-cifar").build(3).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.inference_mode():
        _, embedding = Served(model, Normalization(*IMAGENET))(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert torch.equal(embedding, torch.zeros(1, 64))


def corrupt(monkeypatch: pytest.MonkeyPatch, source: Path, changes: Mapping[str, float]) -> None:
    """From now on the written graph has some weights off by a factor: an exporter with a fault."""

    def write_corrupted(_served: Any, _height: int, _width: int, _facts: Any, path: Path) -> None:
        graph = onnx.load(source)
        for weight in graph.graph.initializer:
            for name, factor in changes.items():
                if weight.name.endswith(name):
                    values = numpy_helper.to_array(weight) * np.float32(factor)
                    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(graph, path)

    monkeypatch.setattr(export, "write_graph", write_corrupted)


@pytest.mark.parametrize(
    "changes",
    [{"fc.weight": 1.001}, {"fc.weight": -1.0}, {"layer1.0.conv1.weight": 1.05}, {"fc.weight": float("nan")}],
    ids=str,
)
def test_a_graph_that_disagrees_is_not_published(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, float]
) -> None:
    corrupt(monkeypatch, trained.package / "model.onnx", changes)
    result = command("--run", trained.run, "--model-repository", tmp_path / "models")
    assert result.exit_code == 1
    assert "ONNX Runtime doesn't agree with PyTorch: max|Δ| ÷ max|reference| " in result.output
    assert "nothing was published" in result.output
    assert list((tmp_path / "models").iterdir()) == []


def test_a_graph_that_agrees_is_published_by_the_same_path(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, trained.package / "model.onnx", {})
    result = command("--run", trained.run, "--model-repository", tmp_path / "models")
    assert result.exit_code == 0, result.output
    # And the next one is the next version.
    result = command("--run", trained.run, "--model-repository", tmp_path / "models")
    assert f"published {tmp_path}/models/lights-resnet20-cifar/2" in result.output
    result = command("--run", trained.run, "--model-repository", tmp_path / "models", "--version", 2)
    assert result.exit_code == 1
    assert "lights-resnet20-cifar/2 is there already" in result.output


@pytest.mark.parametrize(
    "agreement",
    [
        Agreement(9, 1.0, 1.1e-4, 1.0),
        Agreement(9, 8 / 9, 1e-6, 1.0),
        Agreement(9, 1.0, 1e-6, 0.999),
        Agreement(9, 1.0, float("nan"), 1.0),
    ],
)
def test_each_limit_is_kept(agreement: Agreement) -> None:
    with pytest.raises(ParityError):
        check(agreement)
    check(Agreement(9, 1.0, 1e-4, 0.9999))


@pytest.mark.parametrize("faulty", [1, 3, 8])
def test_a_fault_at_one_batch_size_is_found(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, faulty: int
) -> None:
    batches: list[int] = []

    class Faulty(onnxruntime.InferenceSession):  # type: ignore[misc]  # the package has no types
        """Is wrong by a little at one batch size."""

        def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
            batches.append(len(inputs["image"]))
            logits, embedding = super().run(outputs, inputs)
            return [logits * np.float32(1.001 if batches[-1] == faulty else 1), embedding]

    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    compared = best_model(trained), Normalization(*IMAGENET), trained.package / "model.onnx", images
    check(compare(*compared))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Faulty)
    with pytest.raises(ParityError):
        check(compare(*compared))
    assert set(batches) == {1, 3, 8}


def test_labels_are_split_at_line_feeds_only(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffform\x0cfeed\r\nnext\x85line\n line\u2028separator \n\x1cfile\n\n".encode())
    assert read_labels(file) == ["form\x0cfeed", "next\x85line", "line\u2028separator", "\x1cfile"]


def test_weights_from_elsewhere_are_exported_alone(trained: Trained, tmp_path: Path) -> None:
    source = load_checkpoint(trained.run / "checkpoints" / "best.pt").model
    renamed = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in source.items()}
    torch.save({"state_dict": renamed, "best_prec1": 99.0}, tmp_path / "file.pth")
    (tmp_path / "labels.txt").write_text("azul\nverde\nrojo claro\n", encoding="utf-8")
    result = command(
        *(
            "--arch",
            "resnet20-cifar",
            "--weights",
            tmp_path / "file.pth",
            "--labels",
            tmp_path / "labels.txt",
        ),
        *("--input-size", 16, "--resize-size", 18, "--interpolation", "bicubic", "--name", "lights"),
        *("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--version", 7, "--licence", "MIT"),
        *("--jpeg-scaled-decode", "--model-repository", tmp_path / "models"),
    )
    assert result.exit_code == 0, result.output
    folder = tmp_path / "models" / "lights" / "7"
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    manifest = read_manifest(folder)
    assert manifest.labels == ("azul", "verde", "rojo claro")
    assert (manifest.input_height, manifest.resize_short_side, manifest.interpolation) == (16, 18, "bicubic")
    assert manifest.jpeg_scaled_decode
    assert document["preprocessing"]["normalization"]["mean"] == [0.5, 0.5, 0.5]
    assert document["variants"][0]["agreement"]["images"] == 24
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    assert document["provenance"]["recipe"] == f"weights file.pth, SHA-256 {digest}"

    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    logits, _ = run_onnx(folder / "model.onnx", images)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        expected = best_model(trained)((pixels - 0.5) / 0.25).numpy()
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--weights w.pth --labels labels.txt", "--weights needs --arch too"),
        ("--weights w.pth --arch resnet20-cifar", "--weights needs --labels too"),
        ("--weights w.pth --arch resnet20-cifar --labels short.txt", "the head has 3 classes; expected 2"),
        ("--weights w.pth --arch resnet32-cifar --labels labels.txt", "missing (60): "),
        ("--weights w.pth --arch resnet19 --labels labels.txt", "architecture 'resnet19' isn't known"),
        ("--weights w.pth --arch resnet20-cifar --labels gap.txt", "line 2 is empty"),
        ("--weights w.pth --arch resnet20-cifar --labels empty.txt", "has no labels"),
        ("--weights w.pth --checkpoint last", "--checkpoint is for runs, not for --weights"),
        ("--arch resnet18", "--arch is for --weights or --pretrained, not for a run"),
        ("--jpeg-scaled-decode", "--jpeg-scaled-decode is for --weights or --pretrained, not for a run"),
        ("--run . --name ../up", "the model's name is '../up'"),
        ("", "no run with a checkpoint in runs/"),
    ],
)
def test_what_does_not_fit_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    shutil.copytree(trained.run, tmp_path, dirs_exist_ok=True)
    torch.save(load_checkpoint(trained.run / "checkpoints" / "best.pt").model, tmp_path / "w.pth")
    for name, text in (("labels", "a\nb\nc\n"), ("short", "a\nb"), ("gap", "a\n\nc\n"), ("empty", "\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = command(*arguments.split())
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "models").exists()


def test_the_package_function_refuses_before_it_exports(tmp_path: Path) -> None:
    model = architecture("resnet20-cifar").build(3)
    told: dict[str, Any] = {
        "repository": tmp_path / "models",
        "name": "m",
        "architecture": "resnet20-cifar",
        "preprocessing": Preprocessing(8, 8, 8),
        "mean": IMAGENET[0],
        "std": IMAGENET[1],
    }
    with pytest.raises(ExportError, match="2 labels for 3 logits"):
        export_package(model, labels=["a", "b"], **told)
    wrong = np.zeros((4, 9, 8, 3), np.uint8)
    with pytest.raises(
        ExportError, match=r"uint8 of shape \(4, 9, 8, 3\); expected uint8 of \(1 or more, 8, 8, 3\)"
    ):
        export_package(model, labels=CLASSES, images=wrong, **told)
    assert not (tmp_path / "models").exists()


def test_a_package_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with staged(tmp_path, "m", 1) as folder:
        (folder / "model.onnx").write_bytes(b"weights")
        assert not (tmp_path / "m").exists()
        assert folder.name.startswith(".")
        assert folder.parent == tmp_path
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "m",
        "m/1",
        "m/1/model.onnx",
    ]

    def fail_half_way() -> None:
        with staged(tmp_path, "m", 2) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_package_is_on_the_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, bool] = {}

    def fsync(descriptor: int) -> None:
        synced[os.fstat(descriptor).st_ino] = (tmp_path / "m" / "1").exists()

    monkeypatch.setattr(os, "fsync", fsync)
    with staged(tmp_path, "m", 1) as folder:
        (folder / "model.onnx").write_bytes(b"weights")
        (folder / "manifest.json").write_bytes(b"{}")
    published = tmp_path / "m" / "1"
    before = (published / "model.onnx", published / "manifest.json", published)
    after = (published.parent, tmp_path)
    assert synced == {path.stat().st_ino: path in after for path in (*before, *after)}


@pytest.mark.parametrize("version", [None, 3])
def test_a_model_that_is_a_file_is_refused(trained: Trained, tmp_path: Path, version: int | None) -> None:
    (tmp_path / "m").write_text("no folder")
    chosen = [] if version is None else ["--version", version]
    result = command("--run", trained.run, "--model-repository", tmp_path, "--name", "m", *chosen)
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/m isn't a folder; expected the model's folder of versions" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_full_disk_publishes_nothing(trained: Trained, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with (
            pytest.raises(ExportError, match=r"can't publish .*m/1: File too large"),
            staged(tmp_path, "m", 1) as folder,
        ):
            (folder / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_of_two_exports_at_once_the_later_one_is_the_next_version(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, trained.package / "model.onnx", {})
    faithful = vars(export)["write_graph"]
    models = tmp_path / "models" / "lights-resnet20-cifar"

    def while_another_publishes(*arguments: Any) -> None:
        if not models.exists():
            shutil.copytree(trained.package, models / "1")
        faithful(*arguments)

    monkeypatch.setattr(export, "write_graph", while_another_publishes)
    result = command("--run", trained.run, "--model-repository", tmp_path / "models")
    assert result.exit_code == 0, result.output
    assert f"published {models}/2" in result.output
    assert read_manifest(models / "2").version == "2"
    assert (models / "1" / "manifest.json").read_bytes() == (trained.package / "manifest.json").read_bytes()
    shutil.rmtree(models)
    # Who asks for a version gets that one or none.
    result = command("--run", trained.run, "--model-repository", tmp_path / "models", "--version", 1)
    assert result.exit_code == 1
    assert "lights-resnet20-cifar/1 is there already" in result.output


def test_a_version_published_meanwhile_is_kept(tmp_path: Path) -> None:
    def publish_late() -> None:
        with staged(tmp_path, "m", 1) as late:
            (late / "model.onnx").write_bytes(b"late")
            with staged(tmp_path, "m", 1) as early:
                (early / "model.onnx").write_bytes(b"early")

    with pytest.raises(ExportError, match="is there already"):
        publish_late()
    assert (tmp_path / "m" / "1" / "model.onnx").read_bytes() == b"early"


def test_the_next_version_counts_versions_only(tmp_path: Path) -> None:
    assert next_version(tmp_path, "m") == 1
    for name in ("1", "9", "10", "010", "latest", ".m-11-0a1b2c3d"):
        (tmp_path / "m" / name).mkdir(parents=True)
    # What a killed export leaves beside the models.
    (tmp_path / ".m-12-0a1b2c3d").mkdir()
    assert next_version(tmp_path, "m") == 11


def test_the_newest_run_is_the_one_started_last(tmp_path: Path) -> None:
    for name, started in (("b", 1), ("a", 3), ("c", 2)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "best.pt").touch()
        (tmp_path / name / "config.toml").touch()
        os.utime(tmp_path / name / "config.toml", (started, started))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.toml").touch()
    assert newest_run(tmp_path).name == "a"


def test_parity_images_are_real_and_always_the_same(tmp_path: Path) -> None:
    spec = Preprocessing(40, 32, 32)
    photos = sample_photos(spec)
    assert photos.shape == (24, 32, 32, 3)
    assert np.array_equal(photos, sample_photos(spec))
    assert len({photo.tobytes() for photo in photos}) == 24
    assert photos.std() > 30
    folder = write_class_folders(tmp_path / "many", 50)
    assert folder_images(folder, spec).shape == (128, 32, 32, 3)
    (folder / "blue" / "000.jpg").write_bytes(b"broken")
    with pytest.raises(ExportError, match=r"blue/000\.jpg can't be used: not an image"):
        folder_images(folder, spec)
