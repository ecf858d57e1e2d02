"""A run's temperature: fitted by its val images, kept with its weights, exported into the manifest."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.conftest import Trained
from tests.training.noisy import Noisy
from tests.training.pictures import picture
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import RunError
from training.evaluate.calibrate import calibrate, described
from training.evaluate.data import run_pictures
from training.evaluate.evaluation import evaluate
from training.evaluate.run import RunTarget
from training.run_export import _temperature
from training.run_temperature import FILE, read_temperature, weights_digest
from training.temperature import fit_temperature


def copied(noisy: Noisy, folder: Path) -> Path:
    run = folder / "run"
    shutil.copytree(noisy.run, run)
    return run


def test_it_is_that_of_val_and_said_and_exported(noisy: Noisy) -> None:
    on_val = evaluate(RunTarget(noisy.run, device="cpu"), run_pictures(noisy.run, "val"))
    assert on_val.predictions.logits is not None
    expected = fit_temperature(on_val.predictions.logits, on_val.targets)
    assert expected.value != 1
    kept = json.loads((noisy.run / FILE).read_text())
    assert kept["temperature"] == pytest.approx(expected.value, rel=1e-6)
    assert (kept["images"], kept["bins"]) == (27, 15)
    assert kept["nll_after"] < kept["nll_before"]
    assert kept["ece_before"] == pytest.approx(expected.ece_before)
    assert json.loads((noisy.package / "manifest.json").read_text())["temperature"] == kept["temperature"]
    said = f"temperature {kept['temperature']:.4g}, fitted on 27 val images"
    assert said in noisy.fit.output
    assert said in noisy.export.output


def test_few_val_images_leave_it_at_one(trained: Trained) -> None:
    kept = json.loads((trained.run / FILE).read_text())
    assert (kept["temperature"], kept["images"]) == (1.0, 9)
    assert "too few" in kept["reason"]
    assert json.loads((trained.package / "manifest.json").read_text())["temperature"] == 1.0
    assert "temperature 1: 9 images are too few" in trained.fit.output


def test_neither_test_nor_training_images_have_a_part_in_it(noisy: Noisy, tmp_path: Path) -> None:
    run = copied(noisy, tmp_path)
    data = tmp_path / "data"
    shutil.copytree(noisy.data, data)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(noisy.data), str(data)))
    val = set(json.loads((run / "splits.json").read_text())["val"])
    for path in data.rglob("*.png"):
        if path.relative_to(data).as_posix() not in val:
            picture(0, 1).save(path)
    (run / FILE).unlink()
    found = calibrate(run, device="cpu")
    assert found is not None
    assert found.value == pytest.approx(json.loads((noisy.run / FILE).read_text())["temperature"], rel=1e-6)


def test_it_belongs_to_its_weights(noisy: Noisy, tmp_path: Path) -> None:
    run = copied(noisy, tmp_path)
    best = run / "checkpoints" / "best.pt"
    saved = load_checkpoint(best)
    assert read_temperature(run, saved.model) is not None
    before = (run / FILE).read_bytes()
    saved.model["fc.weight"] *= 3
    save_checkpoint(best, saved)
    assert read_temperature(run, saved.model) is None
    assert RunTarget(run, device="cpu").temperature == 1, "another network's isn't taken"
    found = calibrate(run, device="cpu")
    assert found is not None
    assert read_temperature(run, saved.model) == found
    assert (run / FILE).read_bytes() != before


def test_that_of_the_last_checkpoint_leaves_the_file_alone(noisy: Noisy, tmp_path: Path) -> None:
    run = copied(noisy, tmp_path)
    last = run / "checkpoints" / "last.pt"
    saved = load_checkpoint(last)
    saved.model["fc.weight"] *= 3
    save_checkpoint(last, saved)
    before = (run / FILE).read_bytes()
    found = calibrate(run, "last", "cpu")
    assert found is not None
    assert "fitted on 27 val images" in described(found)
    assert (run / FILE).read_bytes() == before


@pytest.mark.parametrize("content", ["{", "{}", '{"weights_sha256": "WEIGHTS", "temperature": 0}'])
def test_a_file_that_is_none_is_refused(noisy: Noisy, tmp_path: Path, content: str) -> None:
    run = copied(noisy, tmp_path)
    weights = load_checkpoint(run / "checkpoints" / "best.pt").model
    rest = dict.fromkeys(("images", "bins", "nll_before", "nll_after", "ece_before", "ece_after"), 1)
    if "WEIGHTS" in content:
        document = json.loads(content.replace("WEIGHTS", weights_digest(weights)))
        content = json.dumps(document | rest | {"reason": ""})
    (run / FILE).write_text(content)
    with pytest.raises(RunError, match=r"temperature\.json"):
        read_temperature(run, weights)


def test_weights_of_other_names_shapes_or_values_have_another_digest() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    assert weights_digest(one) == weights_digest(dict(reversed(one.items())))
    others = [
        {"b": one["a"], "n": one["n"]},
        {"a": one["a"][None], "n": one["n"]},
        {"a": one["a"] * 2, "n": one["n"]},
        {"a": one["a"].bfloat16(), "n": one["n"]},
    ]
    assert len({weights_digest(weights) for weights in [one, *others]}) == 5


def test_export_does_without_val_images_but_not_with_a_broken_file(noisy: Noisy, tmp_path: Path) -> None:
    run = copied(noisy, tmp_path)
    (run / FILE).unlink()
    listed = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps(listed | {"val": ["gone/1.png"]}))
    said: list[str] = []
    assert _temperature(run, "best", said.append) == 1.0
    assert said[0].startswith("temperature 1, for it can't be fitted: ")
    (run / FILE).write_text("{")
    with pytest.raises(RunError, match=r"temperature\.json: can't be read"):
        _temperature(run, "best", said.append)
