"""A checkpoint, its package and a server that serves it give the same numbers on the same images."""

import json
from pathlib import Path
from typing import Any

import fovea
import numpy as np
import pytest
import torch
from PIL import Image

from service.preprocess import Preprocessing
from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.training.noisy import NAMES, Noisy, write_noisy_folders
from tests.training.pictures import picture
from training.errors import TargetError
from training.evaluate.data import LabelledPictures, open_pictures, run_pictures
from training.evaluate.evaluation import Evaluation, evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.run import RunTarget
from training.evaluate.server import ServerTarget
from training.evaluate.target import Target
from training.export import export_package
from training.models import architecture
from training.splits import Split

SPEC = Preprocessing(resize_short_side=10, crop_height=8, crop_width=8, interpolation="bilinear")


def assert_same(one: Evaluation, other: Evaluation) -> None:
    assert one.numbers.keys() == other.numbers.keys()
    for name, value in one.numbers.items():
        # Shares are of counts; losses are as near as float32's sums. Where a neighbour stands may differ by a
        # place or two: of some tens of thousands a few are as near as their neighbours but for the last bits.
        close = "nll" in name or "ece" in name or name == "map_at_r"
        assert other.numbers[name] == pytest.approx(value, rel=1e-4 if close else 0, abs=0), name
    ours, theirs = one.document(), other.document()
    for name in ("per_class", "confusions", "confusion_matrix"):
        assert ours.get(name) == theirs.get(name)
    assert [failure["image"] for failure in ours["failures"]] == [
        failure["image"] for failure in theirs["failures"]
    ]
    assert other.temperature == pytest.approx(one.temperature, rel=1e-5)


def asked(noisy: Noisy, server: ServerProcess, pictures: LabelledPictures) -> list[Evaluation]:
    with ServerTarget(server.address) as served:
        targets: list[Target] = [
            RunTarget(noisy.run, device="cpu", batch_size=5),
            PackageTarget(noisy.package),
            served,
        ]
        return [evaluate(target, pictures) for target in targets]


def test_all_three_say_the_same_of_the_runs_own_test_images(
    noisy: Noisy, noisy_server: ServerProcess
) -> None:
    run, package, server = asked(noisy, noisy_server, run_pictures(noisy.run))
    assert run.temperature != 1, "or the comparison would say little"
    assert 0 < run.numbers["top1_accuracy"] < 1
    assert_same(run, package)
    assert_same(run, server)
    summary = json.loads((noisy.run / "summary.json").read_text())
    assert run.numbers["top1_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert len(run.targets) == summary["test_images"]


def test_pictures_that_fail_fail_alone_and_are_listed_everywhere(
    noisy: Noisy, noisy_server: ServerProcess, tmp_path: Path
) -> None:
    data = write_noisy_folders(tmp_path / "more", 12, seed=7)
    (data / NAMES[1] / "003.png").write_bytes(b"no image")
    whole = (data / NAMES[2] / "004.png").read_bytes()
    (data / NAMES[2] / "004.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (200, 9)).save(data / NAMES[0] / "wide.jpg")
    evaluations = asked(noisy, noisy_server, open_pictures(str(data)))
    for found in evaluations:
        failures = found.document()["failures"]
        assert [failure["image"] for failure in failures] == [f"{NAMES[1]}/003.png", f"{NAMES[2]}/004.png"]
        assert all(failure["reason"] for failure in failures)
        assert found.document()["data"] == {
            "source": f"{data}, all",
            "images": 37,
            "answered": 35,
            "failed": 2,
        }
        assert found.matrix is not None
        assert found.matrix.sum() == 35
    assert_same(evaluations[0], evaluations[1])
    assert_same(evaluations[0], evaluations[2])


def test_classes_are_matched_by_name_not_by_number(noisy: Noisy, tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / "only" / NAMES[2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(2, 500 + number).save(folder / f"{number}.png")
    found = evaluate(PackageTarget(noisy.package), open_pictures(str(tmp_path / "only")))
    assert found.targets.tolist() == [2] * 6
    assert [one.support for one in found.classes] == [0, 0, 6]


def test_served_probabilities_are_those_of_the_temperature(noisy: Noisy, noisy_server: ServerProcess) -> None:
    temperature = json.loads((noisy.package / "manifest.json").read_text())["temperature"]
    assert temperature != 1
    with fovea.Client(noisy_server.address) as client:
        (said,) = client.classify_batch([np.asarray(picture(1, 9))], include_logits=True)
    assert isinstance(said, fovea.Classification)
    assert said.logits is not None
    scaled = np.exp((said.logits - said.logits.max()).astype(np.float64) / temperature)
    assert said.probability == pytest.approx(scaled.max() / scaled.sum(), rel=1e-5)


@pytest.fixture(scope="module")
def other_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an untrained multi-label model, and one without classes."""
    work = tmp_path_factory.mktemp("other")
    torch.manual_seed(3)
    model = architecture("resnet20-cifar").build(3).eval()
    common: dict[str, Any] = {
        "repository": work / "models", "architecture": "resnet20-cifar", "preprocessing": SPEC,
        "mean": (0.4, 0.4, 0.4), "std": (0.3, 0.3, 0.3),
    }  # fmt: skip
    export_package(model, name="several", labels=NAMES, task="multi_label", temperature=0.25, **common)
    export_package(model, name="vectors", labels=(), task="embedding", **common)
    return work / "models"


def test_other_tasks_have_their_own_numbers_and_the_same_everywhere(
    other_tasks: Path, tmp_path: Path
) -> None:
    data = write_noisy_folders(tmp_path / "data", 8)
    table = tmp_path / "data.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(data.rglob("*.png"))]
    rows[3] += f";{NAMES[1]}"
    table.write_text("\n".join(["path,labels", *rows]), encoding="utf-8")
    with ServerProcess(other_tasks, tmp_path / "index") as process:
        for model, source in (("several", str(table)), ("vectors", str(data))):
            pictures = open_pictures(source)
            package = evaluate(PackageTarget(other_tasks / model / "1"), pictures, threshold=0.4)
            with ServerTarget(process.address, model) as served:
                assert_same(package, evaluate(served, pictures, threshold=0.4))
            if model == "several":
                assert package.targets.sum() == 25
                assert package.numbers["threshold"] == 0.4
                assert 0 < package.numbers["mean_average_precision"] < 1
                assert "top1_accuracy" not in package.numbers
            else:
                assert {"recall_at_1", "recall_at_5", "recall_at_10", "map_at_r"} == package.numbers.keys()
                assert "per_class" not in package.document()


def test_a_server_without_a_temperature_has_one_of_1(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    sources = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as process,
        ServerTarget(process.address) as served,
    ):
        assert len(list(served.answers(Split(sources, np.zeros(30, np.int64))))) == 30
        assert served.temperature == 1


def test_a_server_that_goes_away_is_an_error_not_a_score(noisy: Noisy, tmp_path: Path) -> None:
    split = Split(np.zeros((2000, 8, 8, 3), np.uint8), np.zeros(2000, np.int64))
    with (
        ServerProcess(noisy.repository, tmp_path / "index") as process,
        ServerTarget(process.address) as served,
    ):
        answers = served.answers(split)
        assert next(answers).fault == ""
        process.kill()
        with pytest.raises(TargetError, match=r"the server at 127.0.0.1:\d+: UNAVAILABLE"):
            list(answers)


def test_a_package_that_is_damaged_is_refused(noisy: Noisy, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"manifest\.json: can't be read"):
        PackageTarget(tmp_path)
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(TargetError, match="holds list"):
        PackageTarget(tmp_path)
    document = json.loads((noisy.package / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(document | {"input": {}}))
    with pytest.raises(TargetError, match="'height'"):
        PackageTarget(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(TargetError, match=r"model\.onnx: can't be read"):
        PackageTarget(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises(TargetError, match="SHA-256 is"):
        PackageTarget(tmp_path)
    with pytest.raises(TargetError, match="no int8 that can be evaluated here; expected fp32"):
        PackageTarget(noisy.package, "int8")


def test_a_server_that_is_not_there_or_has_no_such_model_is_one_error(noisy_server: ServerProcess) -> None:
    with pytest.raises(TargetError, match=r"the server at 127.0.0.1:1: UNAVAILABLE"):
        ServerTarget("127.0.0.1:1")
    with pytest.raises(TargetError, match="address is 'localhost'; expected host:port"):
        ServerTarget("localhost")
    with pytest.raises(TargetError, match="no model 'nobody'"):
        ServerTarget(noisy_server.address, "nobody")
