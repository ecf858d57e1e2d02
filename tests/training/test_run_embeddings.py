"""A run that learns distances: its splits, its folder, and the package that it becomes."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result

from service.manifest import read_manifest
from tests.training.pictures import picture, write_class_folders
from training.class_disjoint import hold_out
from training.cli import main
from training.config import read_config
from training.data import open_dataset
from training.embeddings import embed
from training.normalization import Normalization
from training.retrieval_metrics import retrieval_scores
from training.run_model import load_run_model
from training.run_splits import run_test_split, run_train_split, run_val_split
from training.setup import scored_batches
from training.splits import Split


@dataclass(frozen=True)
class EmbeddingRun:
    """A run of a network with GeM, a projection and ArcFace on four colours, two of them held out.

    Attributes:
        work: where the commands ran.
        data: the folder of pictures.
        run: the run's folder.
        fit: what the command said.
    """

    work: Path
    data: Path
    run: Path
    fit: Result


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingRun:
    work = tmp_path_factory.mktemp("embedding")
    data = write_class_folders(work / "lights", 14)
    (data / "grey").mkdir()
    for number in range(14):
        picture(number % 3, 9000 + number).convert("L").convert("RGB").save(data / "grey" / f"{number}.png")
    with contextlib.chdir(work):
        fit = CliRunner().invoke(
            main,
            [
                *("fit", "--data", "lights", "--arch", "resnet20-cifar", "--input-size", "8"),
                *("--resize-size", "10", "--epochs", "2", "--batch-size", "8", "--workers", "0"),
                *("--threads", "1", "--learning-rate", "0.01", "--loss", "multi-similarity"),
                *("--pooling", "gem", "--projection", "12", "--holdout-classes", "blue,red"),
                *("--output", "run", "--trackers", "none"),
            ],
        )
    assert fit.exit_code == 0, fit.output
    return EmbeddingRun(work, data, work / "run", fit)


def names(split: Split) -> list[str]:
    return sorted(Path(str(source)).parent.name + "/" + Path(str(source)).name for source in split.sources)


def test_the_runs_splits_are_those_that_it_had(learned: EmbeddingRun) -> None:
    told = read_config(learned.run).data
    assert (told.labels, told.holdout_classes) == (("green", "grey"), ("blue", "red"))
    dataset = hold_out(open_dataset(str(learned.data)), ["blue", "red"])
    for found, wanted in (
        (run_train_split(learned.run, told), dataset.train),
        (run_val_split(learned.run, told), dataset.val),
        (run_test_split(learned.run, told), dataset.test),
    ):
        assert names(found) == names(wanted)
        labels = {Path(str(source)): label for source, label in zip(found.sources, found.labels, strict=True)}
        assert labels == {
            Path(str(source)): label for source, label in zip(wanted.sources, wanted.labels, strict=True)
        }
    assert set(run_train_split(learned.run, told).labels) == {0, 1}
    assert set(run_test_split(learned.run, told).labels) == {2, 3}


def test_what_the_run_reports_is_what_its_checkpoint_retrieves(learned: EmbeddingRun) -> None:
    summary = json.loads((learned.run / "summary.json").read_text())
    assert summary["selects_by"] == "recall_at_1"
    loaded = load_run_model(learned.run)
    test = run_test_split(learned.run, loaded.config.data)
    normalization = Normalization(loaded.config.normalization.mean, loaded.config.normalization.std)
    embeddings, labels = embed(
        loaded.model, normalization, scored_batches(loaded.config, test), torch.device("cpu")
    )
    scores = retrieval_scores(embeddings, labels).named()
    for name, value in scores.items():
        assert summary[f"test_{name}"] == pytest.approx(value, abs=1e-6)
    assert "test recall at 1" in learned.fit.output


@pytest.fixture(scope="module")
def package(learned: EmbeddingRun) -> Path:
    with contextlib.chdir(learned.work):
        result = CliRunner().invoke(
            main, ["export", "--run", "run", "--whiten", "4", "--model-repository", "models", "--name", "m"]
        )
    assert result.exit_code == 0, result.output
    assert "embeddings PCA-whitened to 4 of 12 dimensions, fitted on 20 training images" in result.output
    return learned.work / "models" / "m" / "1"


def test_its_package_has_no_classes_and_whitens(learned: EmbeddingRun, package: Path) -> None:
    manifest = read_manifest(package)
    assert (manifest.task, manifest.labels, manifest.embedding_dimension) == ("embedding", (), 4)
    assert manifest.temperature == 1.0
    loaded = load_run_model(learned.run)
    config = loaded.config
    train = run_train_split(learned.run, config.data)
    session = onnxruntime.InferenceSession(str(package / "model.onnx"), providers=["CPUExecutionProvider"])
    pixels = np.concatenate([batch.numpy() for batch, _ in scored_batches(config, train)])
    (white,) = session.run(["embedding"], {"image": pixels})
    # Fitted on these very images: nothing is left that all of them share.
    assert np.allclose(np.linalg.norm(white, axis=1), 1, atol=1e-5)
    assert np.abs(white.mean(axis=0)).max() < 0.2


def test_whitening_by_other_images_is_another(learned: EmbeddingRun, package: Path, tmp_path: Path) -> None:
    others = write_class_folders(tmp_path / "others", 4, seed=77)
    result = CliRunner().invoke(
        main,
        [
            *("export", "--run", str(learned.run), "--whiten", "4", "--whiten-images", str(others)),
            *("--model-repository", str(tmp_path / "models"), "--name", "m"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "fitted on 12 training images" in result.output
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    first, second = (
        onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"]).run(
            ["embedding"], {"image": pixels}
        )[0]
        for folder in (package, tmp_path / "models" / "m" / "1")
    )
    assert first.shape == second.shape == (5, 4)
    # Similarities, for directions may be turned: PCA's signs mean nothing.
    assert np.abs(first @ first.T - second @ second.T).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--whiten", "13"],
            "--whiten is 13; the 20 training images' embeddings of 12 dimensions vary in 12",
        ),
        (["--whiten-images", "."], "--whiten-images is for --whiten"),
    ],
)
def test_what_cannot_be_whitened_is_refused(
    learned: EmbeddingRun, tmp_path: Path, options: list[str], message: str
) -> None:
    result = CliRunner().invoke(
        main, ["export", "--run", str(learned.run), "--model-repository", str(tmp_path / "models"), *options]
    )
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "models").exists()
