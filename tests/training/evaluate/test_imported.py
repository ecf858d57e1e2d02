"""Foreign models that were imported in a precision of their own: evaluated in it, as they are served."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service.cli import main as fovea_main
from service.manifest import read_manifest
from service.model_settings import ModelSettings
from service.session import open_sessions
from tests.service.cli.import_model.conftest import pictures
from tests.service.cli.import_model.foreign_models import (
    CLASSES,
    SIZE,
    classifier,
    in_eight_bits,
    in_half,
    save,
)
from training.cli import main

COUNT = 12


def made_in(precision: str) -> onnx.ModelProto:
    if precision == "int8":
        return in_eight_bits(classifier(), "QDQ", pictures(40, seed=1))
    return in_half(classifier(), outside=True)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_is_evaluated_in_the_precision_that_it_was_imported_in(
    tmp_path: Path, precision: str
) -> None:
    file = save(tmp_path / "foreign.onnx", made_in(precision))
    importing = ["import-model", str(file), "--model-repository", str(tmp_path / "models")]
    importing += ["--resize-size", str(SIZE)]
    done = CliRunner().invoke(fovea_main, importing, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    package = tmp_path / "models" / "foreign" / "1"
    images = pictures(COUNT)
    for index, image in enumerate(images):
        folder = tmp_path / "data" / str(index % CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    settings = ModelSettings(execution_provider="cpu", compile_cache="", max_batch_size=COUNT)
    (session,) = open_sessions(read_manifest(package), settings)
    expected = float(np.mean(session.run(images).logits.argmax(axis=1) == np.arange(COUNT) % CLASSES))

    numbers = tmp_path / "numbers.json"
    said = evaluate(package, "--data", tmp_path / "data", "--output", numbers, "--report", tmp_path / "page")
    assert said.exit_code == 0, said.output
    found = json.loads(numbers.read_text("utf-8"))
    assert found["target"]["precision"] == precision
    assert found["metrics"]["top1_accuracy"] == pytest.approx(expected)
    asked = evaluate(package, "--data", tmp_path / "data", "--precision", precision)
    assert asked.output.split("\n\n")[0] in said.output
    refused = evaluate(package, "--data", tmp_path / "data", "--precision", "fp32")
    assert refused.exit_code == 1
    assert f"no fp32 that can be evaluated here; expected {precision}" in refused.output
