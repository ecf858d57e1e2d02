"""What import-model publishes computes what the foreign model computes by itself."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

from service.cli.import_model import packaged
from service.cli.import_model.compare import probabilities_of
from tests.service.cli.import_model.conftest import Import, opened, pictures
from tests.service.cli.import_model.foreign_models import (
    CLASSES,
    SIZE,
    WIDTH,
    classifier,
    image_tower,
    in_eight_bits,
    in_half,
    run_by_itself,
    save,
    unit,
)

SCHEMA = json.loads((Path(__file__).parents[4] / "protos" / "manifest.schema.json").read_text("utf-8"))


def manifest(repository: Path, version: int = 1) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (repository / "foreign" / str(version) / "manifest.json").read_text()
    )
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.mark.parametrize(
    ("made", "options", "prepared"),
    [
        ({}, (), {}),
        ({"layout": "NHWC"}, (), {"nhwc": True}),
        ({"layout": "NHWC", "channels": "c"}, ("--layout", "NHWC"), {"nhwc": True}),
        ({"batch": 1}, (), {}),
        ({"batch": 1, "reshape": [1, WIDTH]}, (), {}),
        ({"batch": 1, "reshape": [1, -1]}, (), {}),
        ({"batch": "N", "reshape": [1, -1]}, (), {}),
        ({"batch": 1, "reshape": [1, WIDTH], "opset": 6}, (), {}),
        ({"opset": 9, "weights_as_inputs": True}, (), {}),
        ({"opset": 13}, (), {}),
        ({"opset": 21}, (), {}),
        ({"size": "s"}, ("--input-size", SIZE), {}),
        ({"input_name": "image", "output_name": "embedding"}, (), {}),
        ({"input_name": "logits", "output_name": "fovea/constant"}, (), {}),
        (
            {},
            ("--color-order", "BGR", "--scale", 1, "--mean", "103.9,116.8,123.7", "--std", 1),
            {"bgr": True, "scale": 1, "mean": (103.9, 116.8, 123.7), "std": (1, 1, 1)},
        ),
        (
            {"layout": "NHWC"},
            ("--scale", "1/127.5", "--mean", "1", "--std", "0.5,1,2"),
            {"nhwc": True, "scale": 1 / 127.5, "mean": (1, 1, 1), "std": (0.5, 1, 2)},
        ),
    ],
)
def test_it_gives_what_the_model_gives_by_itself(
    import_model: Import,
    repository: Path,
    made: dict[str, Any],
    options: tuple[object, ...],
    prepared: dict[str, Any],
) -> None:
    model = classifier(**made)
    done = import_model(model, *options)
    assert done.exit_code == 0, done.output
    images = pictures(5)
    if made.get("opset", 9) < 7:  # ONNX Runtime by itself runs none that are as old
        model = onnx.version_converter.convert_version(model, 9)
    logits, features = run_by_itself(model, images, tensors=["features"], **prepared)
    session = opened(repository)
    for size in (1, 2, 5):
        outputs = session.run(images[:size])
        np.testing.assert_allclose(outputs.logits, logits[:size], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(outputs.embedding, unit(features)[:size], rtol=1e-4, atol=1e-5)
    assert np.ptp(logits, axis=0).max() > 0.01  # the pictures tell
    agreement = manifest(repository)["variants"][0]["agreement"]
    assert agreement["max_relative_error"] < 1e-4
    assert agreement["images"] == 8
    assert manifest(repository)["variants"][0]["precision"] == "fp32"
    assert "warning" not in done.output


@pytest.mark.parametrize(
    ("ending", "task"),
    [("Softmax", "single_label"), ("Sigmoid", "multi_label"), ("LogSoftmax", "single_label")],
)
def test_logits_are_taken_before_what_makes_them_probabilities(
    import_model: Import, repository: Path, ending: str, task: str
) -> None:
    model = classifier(ending=ending)
    done = import_model(model)
    assert done.exit_code == 0, done.output
    images = pictures(3)
    given, before = run_by_itself(model, images, tensors=["z"])
    expected = given if ending == "LogSoftmax" else before
    np.testing.assert_allclose(opened(repository).run(images).logits, expected, rtol=1e-4, atol=1e-5)
    assert manifest(repository)["task"] == task
    assert (f"before its {ending}" in done.output) == (ending != "LogSoftmax")


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("batch", ["N", 1])
def test_models_in_half_precision(
    import_model: Import, repository: Path, outside: bool, batch: str | int
) -> None:
    done = import_model(in_half(classifier(batch=batch), outside=outside))
    assert done.exit_code == 0, done.output
    assert "(at most 1e-02)" in done.output
    images = pictures(3)
    logits, features = run_by_itself(classifier(), images, tensors=["features"])
    outputs = opened(repository).run(images)
    assert outputs.logits.dtype == outputs.embedding.dtype == np.float32
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-2 * np.abs(logits).max())
    np.testing.assert_allclose(outputs.embedding, unit(features), atol=1e-2)
    (variant,) = manifest(repository)["variants"]
    assert (variant["precision"], variant["provider"]) == ("fp16", "any")


def test_nodes_in_any_order(import_model: Import, repository: Path) -> None:
    model = classifier(ending="Softmax")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    done = import_model(model)
    assert done.exit_code == 0, done.output
    images = pictures(3)
    _, logits, features = run_by_itself(classifier(ending="Softmax"), images, tensors=["z", "features"])
    outputs = opened(repository).run(images)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.embedding, unit(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["", "Softmax", "Sigmoid"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_models_in_eight_bits(import_model: Import, repository: Path, form: str, ending: str) -> None:
    floats = classifier(ending=ending)
    model = in_eight_bits(floats, form, pictures(40, seed=1))
    done = import_model(model)
    assert done.exit_code == 0, done.output
    assert "(at most 5e-02)" in done.output
    assert (f"before its {ending}" in done.output) == bool(ending)
    (variant,) = manifest(repository)["variants"]
    assert (variant["precision"], variant["provider"]) == ("int8", "any")
    images = pictures(20, seed=2)
    outputs = opened(repository).run(images[:5])
    assert outputs.logits.shape == (5, CLASSES)
    # What it gives by itself, and, roughly, what the model was before.
    (given,) = run_by_itself(model, images[:5])
    answers = outputs.logits
    if ending:
        answers = probabilities_of(outputs.logits.astype(np.float64), ending).astype(np.float32)
    np.testing.assert_allclose(answers, given, atol=0.05 * np.abs(given).max())
    *_, features = run_by_itself(floats, images[:5], tensors=["features"])
    assert np.einsum("nd,nd->n", outputs.embedding, unit(features)).min() > 0.99


def zeroed(name: str) -> onnx.ModelProto:
    """A classifier with weights of nothing but zeros."""
    model = classifier()
    (weight,) = [each for each in model.graph.initializer if each.name == name]
    weight.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(weight), name))
    return model


@pytest.mark.parametrize(
    ("blind", "what"), [("w", "probabilities and its embeddings"), ("head", "probabilities")]
)
def test_a_model_that_does_not_look_is_warned_of(import_model: Import, blind: str, what: str) -> None:
    done = import_model(zeroed(blind))
    assert done.exit_code == 0, done.output
    assert f"warning: its {what} are the same for all 8 pictures that it was tried on" in done.stderr
    assert "--scale, --mean and --std" in done.stderr


def test_of_one_picture_nothing_is_told(import_model: Import, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photos" / "one.png")
    done = import_model(zeroed("w"), "--images", tmp_path / "photos")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""


def test_probabilities_of_eight_bits_are_left_out(import_model: Import, repository: Path) -> None:
    """As ONNX Runtime's quantize_static leaves a classifier that ends in a Softmax."""
    model = classifier(ending="Softmax", output_name="p")
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(1 / 255, np.float32), "step"),
            onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero"),
        ]
    )
    model.graph.node.extend(
        [
            onnx.helper.make_node("QuantizeLinear", ["p", "step", "zero"], ["eight"]),
            onnx.helper.make_node("DequantizeLinear", ["eight", "step", "zero"], ["y"]),
        ]
    )
    model.graph.output[0].name = "y"
    done = import_model(model)
    assert done.exit_code == 0, done.output
    assert "of 'z', before its Softmax" in done.output
    images = pictures(3)
    (logits,) = run_by_itself(model, images, tensors=["z"])[1:]
    np.testing.assert_allclose(opened(repository).run(images).logits, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_probabilities_become_logits_by_their_logarithm(
    import_model: Import, repository: Path, task: str
) -> None:
    model = classifier(ending="arithmetic")
    done = import_model(model, "--probabilities", "y", "--task", task)
    assert done.exit_code == 0, done.output
    assert "probabilities, whose logarithms are taken" in done.output
    images = pictures(3)
    (given,) = run_by_itself(model, images)
    logits = opened(repository).run(images).logits
    if task == "multi_label":
        again = 1 / (1 + np.exp(-logits))
    else:
        again = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(again, given, rtol=1e-4)


def test_what_looks_like_probabilities_must_be_called_so(import_model: Import, repository: Path) -> None:
    model = classifier(ending="arithmetic")
    done = import_model(model)
    assert done.exit_code == 1
    assert "looks like probabilities" in done.output
    assert "--probabilities y" in done.output
    assert not repository.exists()
    assert import_model(model, "--logits", "y").exit_code == 0


@pytest.mark.parametrize(
    ("options", "tensor", "dimension"),
    [
        ((), "features", WIDTH),
        (("--embedding", "active"), "active", WIDTH),
        (("--embedding", "pooled"), "pooled", WIDTH),
        (("--embedding", "y"), "y", CLASSES),
    ],
)
def test_the_embedding_may_be_any_tensor(
    import_model: Import, repository: Path, options: tuple[str, ...], tensor: str, dimension: int
) -> None:
    model = classifier(ending="Softmax")
    options = (*options, "--logits", "z") if tensor == "y" else options
    assert import_model(model, *options).exit_code == 0
    images = pictures(4)
    values = run_by_itself(model, images, tensors=[] if tensor == "y" else [tensor])[-1]
    pooled = values.mean(axis=(2, 3)) if values.ndim == 4 else values
    embedding = opened(repository).run(images).embedding
    assert embedding.shape == (4, dimension)
    np.testing.assert_allclose(embedding, unit(pooled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("token", ["cls", "mean", None])
def test_image_towers_make_embeddings_only(
    import_model: Import, repository: Path, fixed: bool, token: str | None
) -> None:
    model = image_tower(fixed=fixed, projected=token is None)
    done = import_model(model, "--embedding-only", *(("--token", token) if token else ()))
    assert done.exit_code == 0, done.output
    # Its class token is a constant for one picture: only a loop helps.
    assert ("one picture at a time" in done.output) == fixed
    images = pictures(5)
    (values,) = run_by_itself(model, images)
    expected = {"cls": values[:, 0], "mean": values.mean(axis=1)}[token] if token else values
    session = opened(repository)
    for size in (1, 2, 5):
        outputs = session.run(images[:size])
        np.testing.assert_allclose(outputs.embedding, unit(expected)[:size], rtol=1e-4, atol=1e-5)
        assert outputs.logits.shape == (size, 0)
    document = manifest(repository)
    assert (document["task"], document["labels"]) == ("embedding", [])
    assert "top1_agreement" not in document["variants"][0]["agreement"]


def test_a_tower_with_classes_may_be_packaged_without(import_model: Import, repository: Path) -> None:
    model = classifier(ending="Softmax")
    assert import_model(model, "--embedding-only", "--embedding", "features").exit_code == 0
    images = pictures(3)
    features = run_by_itself(model, images, tensors=["features"])[-1]
    np.testing.assert_allclose(opened(repository).run(images).embedding, unit(features), rtol=1e-4, atol=1e-5)
    graph = onnx.load(repository / "foreign" / "1" / "model.onnx").graph
    assert "head" not in {weight.name for weight in graph.initializer}  # what nobody reads isn't kept


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_any_size_come_to_unit_length(
    import_model: Import, repository: Path, size: float
) -> None:
    """Squares of such values are zero, or infinite, in float32."""
    model = classifier()
    model.graph.node[-1].input[0] = "sized"
    scale = onnx.helper.make_node("Mul", ["features", "size"], ["sized"])
    model.graph.node.insert(len(model.graph.node) - 1, scale)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(size, np.float32), "size"))
    assert import_model(model).exit_code == 0
    lengths = np.linalg.norm(opened(repository).run(pictures(3)).embedding, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_weights_in_files_of_their_own_are_taken_in(
    import_model: Import, repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "outside.onnx"
    onnx.save(classifier(), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert import_model(file, "--name", "foreign").exit_code == 0
    assert {path.name for path in (repository / "foreign" / "1").iterdir()} == {"manifest.json", "model.onnx"}
    (logits,) = run_by_itself(classifier(), pictures(2))
    np.testing.assert_allclose(opened(repository).run(pictures(2)).logits, logits, rtol=1e-4, atol=1e-5)
    (tmp_path / "weights.bin").unlink()
    done = import_model(file, "--name", "foreign")
    assert done.exit_code == 1
    assert "its weights are in files of their own, which can't be read" in done.output


def test_the_manifest_says_what_was_done(import_model: Import, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(("eins", "zwei", "drei", "vier", "fünf")) + "\n")
    done = import_model(
        classifier(ending="Softmax"), "--labels", tmp_path / "labels.txt", "--color-order", "BGR",
        "--scale", 1, "--mean", "10,20,30", "--std", "1,2,4", "--resize-size", 20,
        "--interpolation", "bicubic", "--licence", "MIT", "--training-data", "made up",
        "--architecture", "tiny",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    document = manifest(repository)
    assert document["labels"] == ["eins", "zwei", "drei", "vier", "fünf"]
    assert document["preprocessing"] | {"normalization": None} == {
        "resize_short_side": 20,
        "interpolation": "bicubic",
        "antialias": True,
        "jpeg_scaled_decode": False,
        "normalization": None,
    }
    # RGB, of pixels from 0 to 1, whatever the model's own order and scale.
    normalization = document["preprocessing"]["normalization"]
    np.testing.assert_allclose(normalization["mean"], [30 / 255, 20 / 255, 10 / 255])
    np.testing.assert_allclose(normalization["std"], [4 / 255, 2 / 255, 1 / 255])
    assert document["architecture"] == "tiny"
    provenance = document["provenance"]
    assert (provenance["licence"], provenance["training_data"]) == ("MIT", "made up")
    assert provenance["recipe"].startswith("fovea import-model foreign.onnx, SHA-256 ")
    assert "logits z, embedding features" in provenance["recipe"]
    kept = {entry.key: entry.value for entry in onnx.load(repository / "foreign/1/model.onnx").metadata_props}
    inside = json.loads(kept["fovea.manifest"])
    assert inside == {key: value for key, value in document.items() if key != "variants"}


def test_versions_are_counted_and_never_changed(import_model: Import, repository: Path) -> None:
    assert "foreign/1\n" in import_model(classifier()).output
    assert "foreign/2\n" in import_model(classifier()).output
    before = (repository / "foreign" / "1" / "manifest.json").read_bytes()
    done = import_model(classifier(), "--version", 1)
    assert done.exit_code == 1
    assert "is there already, and published versions never change" in done.output
    assert (repository / "foreign" / "1" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in repository.iterdir()) == ["foreign"]


def test_labels_are_numbers_where_there_are_none(import_model: Import, repository: Path) -> None:
    done = import_model(classifier())
    assert "without --labels they are called 0, 1, 2" in done.output
    assert manifest(repository)["labels"] == ["0", "1", "2", "3", "4"]


def test_images_of_a_folder_are_compared_on(import_model: Import, repository: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number, picture in enumerate(pictures(40, size=24)):
        Image.fromarray(picture).save(folder / ("deeper" if number % 2 else ".") / f"{number}.png")
    assert import_model(classifier(), "--images", folder).exit_code == 0
    assert manifest(repository)["variants"][0]["agreement"]["images"] == 32
    (folder / "0.png").write_bytes(b"no image")
    done = import_model(classifier(), "--images", folder)
    assert done.exit_code == 1
    assert "0.png: " in done.output


def test_a_package_that_differs_is_not_published(
    import_model: Import, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_the_order(nodes: Any, image: str, foreign: Any, pixels: Any) -> None:
        from dataclasses import replace

        add_pixels(nodes, image, foreign, replace(pixels, color_order="RGB"))

    add_pixels = packaged._add_pixels
    monkeypatch.setattr(packaged, "_add_pixels", forget_the_order)
    done = import_model(classifier(), "--color-order", "BGR")
    assert done.exit_code == 1
    assert "doesn't give what the model gives by itself; nothing was published" in done.output
    assert not (repository / "foreign").exists()
    assert list(repository.iterdir()) == []


def test_the_file_stays_as_it_is(import_model: Import, tmp_path: Path) -> None:
    file = save(tmp_path / "kept.onnx", classifier(batch=1, reshape=[1, WIDTH]))
    before = file.read_bytes()
    assert import_model(file).exit_code == 0
    assert file.read_bytes() == before
