"""Imported models, served for real: over loopback come the answers that each model gives by itself."""

from collections.abc import Iterator
from pathlib import Path

import fovea
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from service.cli import main
from tests.servers import ServerProcess
from tests.service.cli.import_model.conftest import pictures
from tests.service.cli.import_model.foreign_models import (
    CLASSES,
    classifier,
    image_tower,
    in_eight_bits,
    light_model,
    run_by_itself,
    save,
    unit,
)

# Name → the tensor of its embedding: what goes into its last layer with weights.
LIGHT = {"inception_v1": "r141", "shufflenet": "r200", "squeezenet": "r61"}
COUNT = 3
FORMS = ("QDQ", "QOperator")


def quantized(form: str) -> onnx.ModelProto:
    return in_eight_bits(classifier(ending="Softmax"), form, pictures(40, seed=1))


@pytest.fixture(scope="module")
def light() -> dict[str, onnx.ModelProto]:
    return {name: light_model(name) for name in LIGHT}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, light: dict[str, onnx.ModelProto]
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("imported")
    wanted: dict[str, tuple[onnx.ModelProto, tuple[str, ...]]] = {
        name: (model, ("--resize-size", "224")) for name, model in light.items()
    }
    wanted["tower"] = (image_tower(), ("--embedding-only", "--token", "cls", "--resize-size", "12"))
    wanted["fixed"] = (
        image_tower(fixed=True),
        ("--embedding-only", "--token", "mean", "--resize-size", "12"),
    )
    for form in FORMS:
        wanted[form] = (quantized(form), ("--resize-size", "12"))
    for name, (model, options) in wanted.items():
        file = save(folder / f"{name}.onnx", model)
        arguments = ["import-model", str(file), "--model-repository", str(folder / "models"), *options]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    started = ("--default-model", "tower", "--max-batch-size", "2")
    with ServerProcess(folder / "models", folder / "index", *started) as process:
        yield process


@pytest.fixture
def caller(served: ServerProcess) -> Iterator[fovea.Client]:
    with fovea.Client(served.address) as connected:
        yield connected


@pytest.mark.parametrize("name", LIGHT)
def test_light_models_answer_as_by_themselves(
    caller: fovea.Client, light: dict[str, onnx.ModelProto], name: str
) -> None:
    images = pictures(COUNT, size=224)
    probabilities, features = run_by_itself(light[name], images, tensors=[LIGHT[name]])
    probabilities = probabilities.reshape(COUNT, 1000)
    assert np.ptp(probabilities, axis=0).max() > 1e-4  # the pictures tell
    for image, expected in zip(images, probabilities, strict=True):
        found = caller.classify(image, model=name, top_k=1000)
        likely = np.zeros(1000)
        likely[[score.index for score in found.classes]] = [score.probability for score in found.classes]
        np.testing.assert_allclose(likely, expected, atol=1e-4 * expected.max())
        assert found.label == str(expected.argmax())
    pooled = features.mean(axis=(2, 3)) if features.ndim == 4 else features
    found_vectors = np.stack([caller.embed(image, model=name).vector for image in images])
    np.testing.assert_allclose(found_vectors, unit(pooled), atol=1e-5)


@pytest.mark.parametrize(("name", "fixed"), [("tower", False), ("fixed", True)])
def test_image_towers_embed_and_search(caller: fovea.Client, name: str, fixed: bool) -> None:
    images = pictures(20)
    (tokens,) = run_by_itself(image_tower(fixed=fixed), images)
    expected = unit(tokens.mean(axis=1) if fixed else tokens[:, 0])
    vectors = []
    for result in caller.embed_batch(list(images), model=name):
        assert isinstance(result, fovea.Embedding)
        vectors.append(result.vector)
    np.testing.assert_allclose(np.stack(vectors), expected, atol=1e-5)
    caller.create_collection(name, model=name)
    items = [fovea.Item(str(number), image=image) for number, image in enumerate(images)]
    assert [result.error for result in caller.upsert(name, items)] == [None] * len(images)
    assert [caller.search(name, image=images[i], top_k=1)[0].id for i in (0, 7, 19)] == ["0", "7", "19"]
    with pytest.raises(fovea.FailedPrecondition, match=f"model '{name}' \\(version 1\\) has no classes"):
        caller.classify(images[0], model=name)


@pytest.mark.parametrize("form", FORMS)
def test_models_in_eight_bits_answer_as_by_themselves(caller: fovea.Client, form: str) -> None:
    assert caller.model(form).precision == "int8"
    images = pictures(6, seed=2)
    (given,) = run_by_itself(quantized(form), images)
    for image, expected in zip(images, given, strict=True):
        found = caller.classify(image, model=form, top_k=CLASSES)
        likely = np.zeros(CLASSES)
        likely[[score.index for score in found.classes]] = [score.probability for score in found.classes]
        np.testing.assert_allclose(likely, expected, atol=0.05)
    assert np.ptp(given, axis=0).max() > 0.05  # the pictures tell


def test_the_largest_light_model_is_packaged(tmp_path: Path) -> None:
    """ResNet-50, as onnx's tests have it."""
    model = light_model("resnet50")
    file = save(tmp_path / "resnet50.onnx", model)
    done = CliRunner().invoke(
        main, ["import-model", str(file), "--model-repository", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "logits: 1000 classes, single_label, of 'r174', before its Softmax" in done.output
    assert "embedding: 2048 numbers of 'r173'" in done.output
