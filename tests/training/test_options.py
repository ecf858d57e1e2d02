"""What fit's options come to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.training.pictures import picture, write_class_folders
from training.checkpoint import load_checkpoint
from training.cli import main
from training.config import RunConfig, read_config
from training.data import digits
from training.errors import SettingError
from training.models import architecture
from training.options import FitOptions, resolve
from training.splits import Dataset, Defaults

TINY = (
    *("--arch", "resnet20-cifar", "--input-size", "8", "--resize-size", "10", "--batch-size", "8"),
    *("--threads", "1", "--workers", "0", "--trackers", "none", "--learning-rate", "0.05"),
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return replace(digits(), defaults=Defaults())


def resolved(dataset: Dataset, **told: Any) -> RunConfig:
    arch = told.pop("arch", "resnet18")
    return resolve(FitOptions("digits", arch=arch, **told), architecture(arch), dataset)


@pytest.mark.parametrize(
    ("told", "rate", "decay"),
    [
        ({}, 0.1 * 32 / 256, 1e-4),
        ({"batch_size": 64, "accumulate": 4}, 0.1, 1e-4),
        ({"optimizer": "adamw", "batch_size": 1024}, 1e-3, 0.05),
        ({"optimizer": "lamb", "batch_size": 512}, 4e-3, 0.02),
        ({"optimizer": "lamb", "batch_size": 512, "pretrained": True}, 4e-4, 0.02),
        ({"learning_rate": 0.3, "weight_decay": 0.0}, 0.3, 0.0),
    ],
)
def test_rates_and_decay_suit_the_optimizer(
    dataset: Dataset, told: dict[str, Any], rate: float, decay: float
) -> None:
    optimization = resolved(dataset, **told).optimization
    assert optimization.learning_rate == pytest.approx(rate)
    assert optimization.weight_decay == decay


def test_pixels_are_what_the_architecture_expects_unless_told_otherwise(dataset: Dataset) -> None:
    lite = architecture("efficientnet-lite0")
    config = resolved(dataset, arch="efficientnet-lite0")
    assert (config.normalization.mean, config.normalization.std) == (lite.mean, lite.std)
    assert config.preprocessing.interpolation == lite.interpolation == "bicubic"
    told = resolved(dataset, arch="efficientnet-lite0", mean=(0.1, 0.2, 0.3), interpolation="bilinear")
    assert told.normalization.mean == (0.1, 0.2, 0.3)
    assert told.preprocessing.interpolation == "bilinear"
    # The digits know their own; published weights know better.
    own = resolved(digits(), arch="efficientnet-lite0")
    assert own.normalization.mean == digits().defaults.mean
    assert resolved(digits(), arch="efficientnet-lite0", pretrained=True).normalization.mean == lite.mean


def test_the_version_of_published_weights_is_recorded(dataset: Dataset) -> None:
    assert resolved(dataset).model.pretrained_version == ""
    assert resolved(dataset, arch="resnet50", pretrained=True).model.pretrained_version == "v2"
    told = resolved(dataset, arch="resnet50", pretrained=True, pretrained_version="v1")
    assert told.model.pretrained_version == "v1"


def test_pair_losses_draw_several_images_of_a_class(dataset: Dataset) -> None:
    assert resolved(dataset).data.images_per_class == 0
    assert resolved(dataset, loss="triplet").data.images_per_class == 4
    assert resolved(dataset, loss="triplet", images_per_class=8).data.images_per_class == 8


def test_losses_that_learn_distances_clip_gradients(dataset: Dataset) -> None:
    assert resolved(dataset).optimization.clip_norm == 0
    assert resolved(dataset, loss="arcface").optimization.clip_norm == 1
    assert resolved(dataset, loss="arcface", clip_norm=0.0).optimization.clip_norm == 0


def test_several_labels_are_learned_by_the_binary_loss(dataset: Dataset) -> None:
    assert resolved(dataset).embedding.loss == "cross-entropy"
    assert resolved(replace(dataset, task="multi_label")).embedding.loss == "binary-cross-entropy"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"rand_augment": 9, "trivial_augment": True}, "--rand-augment and --trivial-augment are both given"),
        ({"pretrained": True, "init_weights": Path("x.pth")}, "--pretrained and --init-weights are both"),
        (
            {"pretrained_version": "v1"},
            "--pretrained-version is 'v1' without --pretrained; expected that too",
        ),
        (
            {"arch": "resnet50", "pretrained": True, "pretrained_version": "v3"},
            "resnet50 has no published weights 'v3'; expected v2 or v1",
        ),
        ({"arch": "resnet20-cifar", "pretrained": True}, "no weights are published for resnet20-cifar"),
        ({"loss": "triplet", "cutmix": 1.0}, "--loss triplet wants one label an image; expected no mixup"),
        ({"unfreeze_at_epoch": 3}, "--unfreeze-at-epoch is 3 without --freeze"),
        ({"train_size": 16, "crop": "padded"}, "--train-size is 16 with --crop padded"),
        ({"warmup_epochs": 30}, "--warmup-epochs is 30; expected less than --epochs = 30"),
    ],
)
def test_options_that_contradict_are_refused(dataset: Dataset, told: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        resolved(dataset, **told)


def fit(data: Path, output: Path, *arguments: object) -> Result:
    told = ["fit", "--data", data, "--output", output, *TINY, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in told])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("data") / "lights", 10)


@pytest.mark.parametrize(("thaw", "still"), [(None, True), (3, True), (2, False)])
def test_frozen_stages_keep_their_weights_until_they_are_freed(
    data: Path, tmp_path: Path, thaw: int | None, still: bool
) -> None:
    told = ("--epochs", 2, "--freeze", "layer2", "--layer-decay", 0.5, "--warmup-epochs", 0)
    thawing = ("--unfreeze-at-epoch", thaw) if thaw else ()
    result = fit(data, tmp_path / "run", *told, *thawing)
    assert result.exit_code == 0, result.output
    torch.manual_seed(0)
    start = architecture("resnet20-cifar").build(3).state_dict()
    end = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").model
    kept = {name.split(".")[0] for name, value in end.items() if torch.equal(value, start[name])}
    assert kept == ({"conv1", "bn1", "layer1", "layer2"} if still else set())
    transfer = read_config(tmp_path / "run").transfer
    assert (transfer.freeze, transfer.unfreeze_at_epoch, transfer.layer_decay) == ("layer2", thaw or 0, 0.5)


@pytest.mark.parametrize("thawing", [(), ("--unfreeze-at-epoch", 2)])
def test_an_unknown_stage_lists_those_that_there_are(
    data: Path, tmp_path: Path, thawing: tuple[object, ...]
) -> None:
    result = fit(data, tmp_path / "run", "--freeze", "layer9", *thawing)
    assert result.exit_code == 1
    assert not (tmp_path / "run").exists()
    assert (
        "--freeze is 'layer9'; expected a stage of CifarResNet: stem, layer1, layer2, layer3" in result.output
    )


def test_an_embedding_for_classes_that_training_does_not_see(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / "lights" / f"kind{number}"
        folder.mkdir(parents=True)
        for index in range(8):
            picture(number % 3, 100 * number + index).save(folder / f"{index}.png")
    told = ("--loss", "triplet", "--holdout-classes", 2, "--pooling", "gem", "--projection", 6, "--epochs", 1)
    result = fit(tmp_path / "lights", tmp_path / "run", *told, "--mixup", 0)
    assert result.exit_code == 0, result.output
    assert "best val recall at 1" in result.output
    config = read_config(tmp_path / "run")
    assert config.data.labels == ("kind0", "kind1", "kind2")
    assert config.data.holdout_classes == ("kind3", "kind4")
    assert (config.embedding.loss, config.embedding.pooling, config.embedding.projection) == (
        "triplet",
        "gem",
        6,
    )
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    assert best.selects_by == "recall_at_1"
    assert best.model["fc.weight"].shape == (3, 6)
    refused = fit(tmp_path / "lights", tmp_path / "other", *told, "--cutmix", 1)
    assert refused.exit_code == 1
    assert "no mixup or cutmix" in refused.output
    assert not (tmp_path / "other").exists()


def test_too_few_images_to_retrieve_are_said_before_training(tmp_path: Path) -> None:
    # One of each class in val.
    data = write_class_folders(tmp_path / "lights", 5)
    result = fit(data, tmp_path / "run", "--loss", "arcface", "--epochs", 1)
    assert result.exit_code == 1
    assert "none of its 3 val images has another one of its class" in result.output
    assert not (tmp_path / "run").exists()


def test_labels_that_cannot_be_ranked_leave_a_run_without_that_score(tmp_path: Path) -> None:
    # Every image of val and test has the one label.
    rows = ["path,labels,split"]
    for number in range(20):
        picture(number % 3, number).save(tmp_path / f"{number}.png")
        split = "train" if number < 12 else "val" if number < 16 else "test"
        rows.append(f"{number}.png,{'red' if split != 'train' or number % 2 else ''},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    result = fit(tmp_path / "table.csv", tmp_path / "run", "--epochs", 3, "--patience", 1)
    assert result.exit_code == 0, result.output
    # There is nothing to choose by: the last epoch counts.
    assert "best val mean average precision not measurable (epoch 3 of 3)" in result.output
    assert "test mean average precision not measurable on 4 images" in result.output
    assert "NaN" not in (tmp_path / "run" / "summary.json").read_text()


def test_everything_else_at_once(data: Path, tmp_path: Path) -> None:
    told = (
        "--epochs",
        1,
        "--train-size",
        16,
        "--crop",
        "resized",
        "--class-weights",
        "--loss",
        "binary-cross-entropy",
    )
    result = fit(
        data, tmp_path / "run", *told, "--rand-augment", 5, "--erasing", 0.5, "--bf16", "--dropout", 0.3
    )
    assert result.exit_code == 0, result.output
    config = read_config(tmp_path / "run")
    assert (config.augmentation.train_size, config.augmentation.rand_augment) == (16, 5)
    assert config.preprocessing.crop_height == 8
    assert (config.model.dropout, config.optimization.bf16) == (0.3, True)


def test_a_compiler_that_is_missing_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    result = fit(data, tmp_path / "run", "--compile")
    assert result.exit_code == 1
    assert "--compile: torch.compile doesn't work here: " in result.output
    assert "install a C++ compiler" in result.output
    assert not (tmp_path / "run").exists()
