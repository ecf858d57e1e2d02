"""fovea-train probe: the frozen network once, a head, and both as one run."""

import contextlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.preprocess import Preprocessing
from tests.training.conftest import Trained
from tests.training.pictures import write_class_folders
from training import features as features_module
from training.checkpoint import load_checkpoint
from training.cli import main
from training.embeddings import embed
from training.models import architecture
from training.normalization import Normalization
from training.run_model import load_run_model
from training.run_splits import run_test_split
from training.run_temperature import read_temperature
from training.setup import scored_batches
from training.splits import Split
from training.views import View

SMALL = ("--input-size", "8", "--resize-size", "10", "--workers", "0", "--threads", "1")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Probed:
    """A probe of a random network on three colours, run twice with the same cache."""

    data: Path
    weights: Path
    cache: Path
    run: Path
    first: Result
    second: Result


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    work = tmp_path_factory.mktemp("probe")
    data = write_class_folders(work / "lights", 20)
    torch.manual_seed(0)
    # Even a random network's features tell colours apart.
    torch.save(architecture("resnet20-cifar").build(10).state_dict(), work / "backbone.pth")
    given = ("probe", "--data", data, "--arch", "resnet20-cifar", "--init-weights", work / "backbone.pth")
    with contextlib.chdir(work):
        results = [
            command(*given, *SMALL, "--feature-cache", "cache", "--output", name) for name in ("run", "again")
        ]
    for result in results:
        assert result.exit_code == 0, result.output
    return Probed(data, work / "backbone.pth", work / "cache", work / "run", *results)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on: how many pictures each pass of the network looks at."""
    seen: list[int] = []

    def counting(model: Any, normalization: Any, batches: Any, *rest: Any) -> Any:
        seen.append(len(batches.split))
        return embed(model, normalization, batches, *rest)

    monkeypatch.setattr(features_module, "embed", counting)
    return seen


def test_the_head_tells_the_classes_apart(probed: Probed) -> None:
    summary = json.loads((probed.run / "summary.json").read_text())
    assert summary["test_accuracy"] >= 0.8
    assert f"test accuracy {summary['test_accuracy']:.2%} on 9 images" in probed.first.output
    assert "next: fovea-train export --run run" in probed.first.output


def test_a_head_that_learned_nothing_is_warned_of(probed: Probed, tmp_path: Path) -> None:
    assert "warning" not in probed.first.output
    # The same pixels in other files: nothing tells the classes apart but how many images they have.
    for name, count in (("cat", 12), ("dog", 24)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            told = PngInfo()
            told.add_text("title", f"{name} {number}")
            file = tmp_path / "data" / name / f"{number}.png"
            Image.new("RGB", (16, 16), (120, 120, 120)).save(file, pnginfo=told)
    given = (
        *("probe", "--data", tmp_path / "data", "--arch", "resnet20-cifar", "--init-weights", probed.weights),
        *(*SMALL, "--feature-cache", tmp_path / "cache"),
    )
    result = command(*given, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    val = json.loads((tmp_path / "run" / "summary.json").read_text())["val_accuracy"]
    assert (
        f"warning: the head learned nothing that shows: its val accuracy of {val:.2%} is no better than "
        f"saying 'dog' of every image ({val:.2%})"
    ) in result.output
    weighed = command(*given, "--class-weights", "--output", tmp_path / "weighed")
    assert weighed.exit_code == 0, weighed.output
    assert "warning" not in weighed.output


def test_only_the_head_was_learned(probed: Probed) -> None:
    before = torch.load(probed.weights, weights_only=True)
    after = load_checkpoint(probed.run / "checkpoints" / "best.pt").model
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (not name.startswith("fc.")), name
    assert after["fc.weight"].shape == (3, 64)


def test_the_run_is_scored_like_any_other(probed: Probed) -> None:
    loaded = load_run_model(probed.run)
    test = run_test_split(probed.run, loaded.config.data)

    normalization = Normalization(loaded.config.normalization.mean, loaded.config.normalization.std)
    features, labels = embed(
        loaded.model, normalization, scored_batches(loaded.config, test), torch.device("cpu")
    )
    with torch.inference_mode():
        accuracy = float((loaded.model.classify(features).argmax(dim=1) == labels).float().mean())
    summary = json.loads((probed.run / "summary.json").read_text())
    assert summary["test_accuracy"] == pytest.approx(accuracy)
    logged = json.loads((probed.run / "metrics.jsonl").read_text())
    assert logged["val_accuracy"] == summary["val_accuracy"]
    assert read_temperature(probed.run, loaded.checkpoint.model) is not None
    trials = json.loads((probed.run / "probe.json").read_text())
    assert loaded.config.optimization.weight_decay in {trial["weight_decay"] for trial in trials}
    assert loaded.config.optimization.optimizer == "lbfgs"
    assert loaded.config.transfer.freeze == "layer3"


def test_backbone_and_head_are_exported_as_one(probed: Probed, tmp_path: Path) -> None:
    result = command("export", "--run", probed.run, "--model-repository", tmp_path, "--name", "m")
    assert result.exit_code == 0, result.output
    assert "same top-1 100.00%" in result.output
    evaluated = command("evaluate", tmp_path / "m" / "1", "--data", probed.run)
    summary = json.loads((probed.run / "summary.json").read_text())
    assert evaluated.exit_code == 0, evaluated.output
    assert f"{summary['test_accuracy']:.2%}" in evaluated.output


def test_the_second_time_the_network_only_shows_that_it_is_the_same(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    again = probe(probed, tmp_path / "run")
    assert again.exit_code == 0, again.output
    # Samples of train, val and test.
    assert seen == [8, 8, 8]
    for name in ("weight", "bias"):
        heads = [
            load_checkpoint(run / "checkpoints" / "best.pt").model[f"fc.{name}"]
            for run in (probed.run, tmp_path / "run")
        ]
        assert torch.equal(*heads)


def probe(probed: Probed, output: Path, *more: object) -> Result:
    return command(
        *("probe", "--data", probed.data, "--arch", "resnet20-cifar", "--init-weights", probed.weights),
        *(*SMALL, "--feature-cache", probed.cache, "--output", output, *more),
    )


def test_only_what_changed_is_computed(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    changed = next((probed.data / "green").glob("*.png"))
    before = changed.read_bytes()
    try:
        with Image.open(changed) as image:
            image.rotate(180).save(changed)
        assert probe(probed, tmp_path / "run").exit_code == 0
    finally:
        changed.write_bytes(before)
    assert sorted(seen) == [1, 8, 8, 8]


@pytest.mark.parametrize(
    "more", [("--mean", "0.5,0.5,0.5"), ("--resize-size", "12"), ("--pooling", "gem")], ids=str
)
def test_another_way_to_look_at_pictures_uses_no_old_features(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    seen = counted(monkeypatch)
    assert probe(probed, tmp_path / "run", *more).exit_code == 0
    assert seen == [42, 9, 9]


def test_features_that_the_network_gives_no_more_are_made_anew(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = probe(probed, tmp_path / "one", "--feature-cache", cache)
    assert first.exit_code == 0, first.output
    # As if this code had changed, and nothing that the cache is named by.
    model = type(architecture("resnet20-cifar").build(3))
    features = model.features
    monkeypatch.setattr(model, "features", lambda self, x: features(self, x).roll(1, dims=1))
    second = probe(probed, tmp_path / "two", "--feature-cache", cache)
    assert second.exit_code == 0, second.output
    assert second.output.count("aren't what this network gives any more; they are made anew") >= 1
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("one", "two")]
    assert summaries[0]["val_accuracy"] == summaries[1]["val_accuracy"]


def test_a_runs_network_can_be_the_backbone(trained: Trained, tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "others", 10, seed=500)
    result = command(
        *("probe", "--run", trained.run, "--data", data, "--threads", 1, "--workers", 0),
        *("--feature-cache", tmp_path / "cache", "--output", tmp_path / "run"),
    )
    assert result.exit_code == 0, result.output
    loaded, before = load_run_model(tmp_path / "run"), load_run_model(trained.run)
    assert loaded.config.preprocessing == before.config.preprocessing
    assert torch.equal(loaded.model.state_dict()["conv1.weight"], before.model.state_dict()["conv1.weight"])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] == 1.0


def test_views_are_more_vectors_for_training_only(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    result = probe(probed, tmp_path / "run", "--views", 3)
    assert result.exit_code == 0, result.output
    assert "features of 126 views" in result.output
    # What is known of the first view is only sampled.
    assert seen == [8, 42, 42, 8, 8]


def test_each_view_is_another_and_always_the_same() -> None:
    spec = Preprocessing(72, 72, 72)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    picture = Split(pixels[None], np.zeros(1, np.int64)).picture(0)
    views = [View(spec, number)(picture, random.Random(1)) for number in range(4)]
    again = [View(spec, number)(picture, random.Random(2)) for number in range(4)]
    assert all(view.shape == (72, 72, 3) for view in views)
    assert all(np.array_equal(*pair) for pair in zip(views, again, strict=True))
    assert len({view.tobytes() for view in views}) == 4
    assert np.array_equal(views[1], views[0][:, ::-1])
    assert len({View(spec, number).described for number in range(4)}) == 4
    other = Split(255 - pixels[None], np.zeros(1, np.int64)).picture(0)
    assert not np.array_equal(255 - views[2], View(spec, 2)(other, random.Random(1)))


def test_several_labels_an_image_are_probed_too(probed: Probed, tmp_path: Path) -> None:
    rows = ["path,labels"]
    for number, path in enumerate(sorted(probed.data.rglob("*.*g"))):
        labels = path.parent.name + (";even" if number % 2 == 0 else "")
        rows.append(f"{path},{labels}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    result = command(
        *("probe", "--data", table, "--arch", "resnet20-cifar", "--init-weights", probed.weights, *SMALL),
        *("--feature-cache", tmp_path / "cache", "--output", tmp_path / "run"),
    )
    assert result.exit_code == 0, result.output
    assert "test mean average precision" in result.output
    assert load_run_model(tmp_path / "run").task == "multi_label"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--arch resnet20-cifar", "expected --pretrained, --init-weights or --run"),
        ("", "the backbone's --arch is missing"),
        ("--run {run} --arch resnet18", "--arch isn't for --run, whose own is taken"),
        ("--run {run} --pooling gem", "--pooling isn't for --run"),
        ("--arch resnet20-cifar --init-weights {weights} --output {run}", "which isn't empty"),
        ("--arch resnet32-cifar --init-weights {weights}", "these weights belong to another network"),
        ("--arch resnet20-cifar --pretrained", "resnet20-cifar"),
    ],
)
def test_what_does_not_fit_is_refused(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = arguments.format(run=probed.run, weights=probed.weights).split()
    result = command("probe", "--data", probed.data, "--feature-cache", "cache", *told)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "runs").exists()


def test_a_probe_that_was_stopped_goes_on_where_it_was(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "_IMAGES_PER_FILE", 16)
    seen: list[int] = []

    def stopped_in_the_second_file(model: Any, normalization: Any, batches: Any, *rest: Any) -> Any:
        seen.append(len(batches.split))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return embed(model, normalization, batches, *rest)

    monkeypatch.setattr(features_module, "embed", stopped_in_the_second_file)
    probe(probed, tmp_path / "run", "--feature-cache", tmp_path / "cache")
    assert seen == [16, 16]
    assert probe(probed, tmp_path / "run", "--feature-cache", tmp_path / "cache").exit_code == 0
    # A sample of the first file, then the rest: 42 - 16 of train, val, test.
    assert seen[2:] == [8, 16, 10, 9, 9]


def test_a_probe_that_stops_leaves_no_empty_run(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(features_module, "embed", stopped)
    probe(probed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
