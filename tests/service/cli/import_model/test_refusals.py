"""What import-model refuses, and what it says then; nothing is published."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.service.cli.import_model.conftest import Import
from tests.service.cli.import_model.foreign_models import (
    SIZE,
    classifier,
    image_tower,
    model_of,
    save,
    weights,
)


def two_inputs() -> onnx.ModelProto:
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("text", TensorProto.INT64, ["N", 77]))
    model.graph.node.append(helper.make_node("Identity", ["text"], ["same"]))
    return model


def two_outputs() -> onnx.ModelProto:
    model = classifier(ending="Softmax")
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5]))
    return model


def of_type(kind: int) -> onnx.ModelProto:
    model = classifier()
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def without_weights() -> onnx.ModelProto:
    return model_of(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        {}, ["N", 3, SIZE, SIZE], {"y": ["N", 3]},
    )  # fmt: skip


def maps_as_logits() -> onnx.ModelProto:
    return model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"w": weights(4, 3, 3, 3)}, ["N", 3, SIZE, SIZE], {"y": ["N", 4, SIZE - 2, SIZE - 2]},
    )  # fmt: skip


def of_batches_of(size: int) -> onnx.ModelProto:
    """Its answers depend on the whole batch, so that no other size can be right."""
    model = classifier(batch=size)
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["y", "rows"], ["all"], keepdims=1),
            helper.make_node("Add", ["y", "all"], ["mixed"]),
        ]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "rows"))
    model.graph.output[0].name = "mixed"
    return model


def not_finite() -> onnx.ModelProto:
    model = classifier()
    model.graph.node.append(helper.make_node("Div", ["y", "zero"], ["infinite"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "zero"))
    model.graph.output[0].name = "infinite"
    return model


def unknown_operator() -> onnx.ModelProto:
    model = classifier()
    model.graph.node[1].op_type = "Rilu"
    return model


def in_a_circle() -> onnx.ModelProto:
    model = classifier()
    model.graph.node[1].input[0] = "pooled"
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (two_inputs(), (), "its inputs are 'x' float32 [N, 3, 12, 12], 'text' int64 [N, 77]; expected one"),
        (two_outputs(), (), "2 outputs to choose from; say which with --logits: 'y' float32 [N, 5], 'z'"),
        (of_type(TensorProto.UINT8), (), "is uint8 [N, 3, 12, 12]; expected float32 or float16 of four"),
        (of_type(TensorProto.DOUBLE), (), "is float64 [N, 3, 12, 12]; expected float32"),
        (of_type(TensorProto.BFLOAT16), (), "is bfloat16 [N, 3, 12, 12]; expected float32 or float16 of"),
        (
            classifier(channels=1),
            (),
            "input of shape ['?', 1, 12, 12] doesn't say which dimension holds the 3",
        ),
        (classifier(channels=1), ("--layout", "NCHW"), "takes 1 channels as NCHW; expected 3: RGB or BGR"),
        (
            classifier(size=3),
            (),
            "doesn't say which dimension holds the 3 channels; say it with --layout NCHW",
        ),
        (classifier(size="s"), (), "the graph leaves the picture's size open; say it with --input-size"),
        (classifier(), ("--input-size", "12x13"), "--input-size is 12x13, but"),
        (classifier(), ("--resize-size", 11), "crop_height is 12; expected 1 to resize_short_side = 11"),
        (classifier(), ("--logits", "yy"), "--logits 'yy' is no tensor of the graph"),
        (classifier(), ("--embedding", "feature"), "no tensor of the graph; like it are 'features'"),
        (classifier(), ("--embedding", "head"), "--embedding 'head' doesn't depend on the picture"),
        (classifier(), ("--logits", "y", "--probabilities", "y"), "give either --logits or --probabilities"),
        (classifier(), ("--probabilities", "y"), "expected 0 to 1; name logits with --logits"),
        (classifier(), ("--embedding-only", "--task", "multi_label"), "--task is for a model with classes"),
        (classifier(), ("--embedding-only", "--logits", "y"), "--logits is for a model with classes"),
        (classifier(), ("--token", "cls"), "--token is for [pictures, tokens, dimension]"),
        (classifier(), ("--name", "../up"), "the model's name is '../up'; expected 1 to 128 letters"),
        (image_tower(), ("--embedding-only",), "['pictures', 10, 8]; say which token with --token cls or"),
        (
            image_tower(),
            (),
            "the logits' tensor 'tokens' is ['pictures', 10, 8]; expected [pictures, classes]",
        ),
        (without_weights(), (), "no Gemm, MatMul or Conv with weights leads to 'y'; say which tensor"),
        (
            maps_as_logits(),
            (),
            "the logits' tensor 'y' is ['pictures', 4, 10, 10]; expected [pictures, classes]",
        ),
        (of_batches_of(2), (), "doesn't give what the model gives by itself"),
        (not_finite(), (), "'infinite' has values that aren't finite for ordinary pictures"),
        (unknown_operator(), (), "ONNX Runtime can't load it"),
        (in_a_circle(), (), "not an ONNX model: nodes of its graph wait for each other"),
        (onnx.ModelProto(), (), "not an ONNX model, or one that computes nothing"),
    ],
)
def test_what_cannot_be_packaged_is_said(
    import_model: Import, repository: Path, model: onnx.ModelProto, options: tuple[Any, ...], message: str
) -> None:
    done = import_model(model, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert not (repository / "foreign").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "1,2"), "expected three numbers with commas between them, or one for all"),
        (("--mean", "a,b,c"), "expected three numbers"),
        (("--mean", "nan"), "expected three numbers"),
        (("--std", "1,0,1"), "expected numbers above 0"),
        (("--scale", "0"), "expected a number above 0, such as 1/255 or 1"),
        (("--scale", "1/0"), "expected a number above 0"),
        (("--scale", "-1"), "expected a number above 0"),
        (("--input-size", "0"), "expected pixels up to 4096"),
        (("--input-size", "12x"), "expected pixels up to 4096"),
        (("--input-size", "5000"), "expected pixels up to 4096"),
        (("--layout", "CHW"), "'CHW' is not one of"),
    ],
)
def test_options_that_cannot_be_used(import_model: Import, options: tuple[str, str], message: str) -> None:
    done = import_model(classifier(), *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_file_that_is_no_model(import_model: Import, tmp_path: Path) -> None:
    file = tmp_path / "photo.onnx"
    file.write_bytes(b"\xff\xd8\xff\xe0 no model")
    done = import_model(file)
    assert done.exit_code == 1
    assert "photo.onnx: not an ONNX model" in done.output


def test_labels_must_fit(import_model: Import, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    for text, message in (
        ("a\nb\n", "has 2 labels for 5 logits; expected one each"),
        ("a\n\nb\nc\nd\n", "line 2 is empty; expected one label a line"),
        ("\n", "line 1 is empty"),
    ):
        labels.write_text(text)
        done = import_model(classifier(), "--labels", labels)
        assert done.exit_code == 1
        assert message in done.output
    labels.write_bytes(b"\xff\n")
    assert "can't be read as UTF-8 text" in import_model(classifier(), "--labels", labels).output


def test_no_images_to_compare_on(import_model: Import, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no image files under" in import_model(classifier(), "--images", tmp_path / "empty").output


@pytest.mark.parametrize(("missing", "extra"), [("onnx", "import"), ("onnxruntime", "serve")])
def test_what_is_not_installed_is_named(tmp_path: Path, missing: str, extra: str) -> None:
    file = save(tmp_path / "m.onnx", classifier())
    program = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "import-model", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"{missing} isn't installed; import-model needs fovea-serving[{extra}]" in done.stderr


def test_help_needs_neither() -> None:
    program = (
        "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; "
        "from service.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "import-model", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "Package an ONNX model that somebody else made." in done.stdout
