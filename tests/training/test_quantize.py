"""The int8, fp16 and bf16 variants: what they compute, what stays exact, and which are published."""

import json
import logging
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import numpy_helper

from service.preprocess import Preprocessing
from tests.training.conftest import Trained
from tests.training.pictures import CLASSES, picture, write_class_folders
from training import cli_export, runtime, variants
from training.agreement import agreement
from training.calibration import MAX_CALIBRATION_IMAGES, CalibrationBatches, held_apart
from training.checkpoint import load_checkpoint
from training.cli import main
from training.config import read_config
from training.errors import ExportError, RunError, SettingError
from training.evaluation import EvaluationImages, calibration_folder, evaluation_folder
from training.graph import Served, write_graph
from training.graph_parts import around_max_pooling
from training.half import to_float16
from training.models import architecture
from training.normalization import Normalization
from training.quantize import GPU, X86, Scheme, quantize
from training.run_splits import run_test_split, run_train_split
from training.runtime import cpu_outputs
from training.variants import KINDS, PRECISIONS, check_precisions, make_variants

SCHEMA = json.loads((Path(__file__).parents[2] / "protos" / "manifest.schema.json").read_text())
SPEC = Preprocessing(10, 8, 8)
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pictures(count: int, seed: int) -> Pixels:
    """Of the kind that `trained` has learned from, a third of each class."""
    return np.stack([np.asarray(picture(i % 3, seed + i, 8, 8)) for i in range(count)])


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def bfloat16_or_skip() -> None:
    try:
        runtime.check_bfloat16()
    except ExportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained network's fp32, int8 and fp16 files."""
    folder, source = tmp_path_factory.mktemp("made"), trained.package / "model.onnx"
    (folder / "model.onnx").write_bytes(source.read_bytes())
    quantize(source, folder / "x86.onnx", pictures(20, 1000), X86)
    quantize(source, folder / "gpu.onnx", pictures(20, 1000), GPU)
    to_float16(source, folder / "half.onnx")
    return folder


def nodes(file: Path) -> dict[str, onnx.NodeProto]:
    """Tensor → the node that computes it."""
    return {output: node for node in onnx.load(file).graph.node for output in node.output}


@pytest.mark.parametrize(("name", "signed"), [("x86", False), ("gpu", True)])
def test_weights_are_signed_per_channel_and_activations_as_the_engine_wants(
    made: Path, name: str, signed: bool
) -> None:
    graph = onnx.load(made / f"{name}.onnx").graph
    weights = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    producer = nodes(made / f"{name}.onnx")
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 19
    for node in convolutions:
        activation, weight = (producer[name] for name in node.input[:2])
        assert activation.op_type == weight.op_type == "DequantizeLinear"
        assert weights[weight.input[0]].dtype == np.int8
        assert weights[weight.input[1]].shape == (weights[weight.input[0]].shape[0],)
        zero = weights[activation.input[2]]
        assert zero.dtype == (np.int8 if signed else np.uint8)
        assert not signed or zero == 0


@pytest.mark.parametrize("name", ["x86", "gpu", "half"])
def test_normalisation_and_unit_length_stay_float32(made: Path, name: str) -> None:
    file = made / f"{name}.onnx"
    producer = nodes(file)
    # From the input to the first layer: transpose, cast, scale, offset and nothing between.
    chain: list[str] = []
    tensor = "image"
    consumers = {name: node for node in onnx.load(file).graph.node for name in node.input}
    while (node := consumers[tensor]).op_type not in ("Conv", "QuantizeLinear", "Cast") or not chain[1:]:
        chain.append(node.op_type)
        tensor = node.output[0]
    assert chain == ["Transpose", "Cast", "Mul", "Add"]
    if name != "half":
        # Logits and embedding come from features that nothing rounds again.
        assert [producer[name].op_type for name in ("logits", "embedding")] == ["Gemm", "Div"]
        assert producer[producer["embedding"].input[0]].op_type == "ReduceMean"


@pytest.mark.parametrize("name", ["x86", "gpu", "half"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_variant_computes_what_fp32_computes_but_for_its_rounding(
    made: Path, name: str, batch: int
) -> None:
    images = pictures(30, 5000)
    logits, embeddings = cpu_outputs(made / "model.onnx", images, 8)
    theirs, their_embeddings = cpu_outputs(made / f"{name}.onnx", images, batch)
    assert theirs.dtype == their_embeddings.dtype == np.float32
    error = np.abs(theirs - logits).max() / np.abs(logits).max()
    assert 0 < error < (0.005 if name == "half" else 0.2)
    assert np.allclose(np.linalg.norm(their_embeddings, axis=1), 1, atol=1e-5)
    assert np.einsum("nd,nd->n", embeddings, their_embeddings).mean() > 0.98


@pytest.mark.parametrize("name", ["x86", "gpu", "half"])
def test_a_variant_carries_the_same_metadata(made: Path, name: str) -> None:
    kept = {entry.key: entry.value for entry in onnx.load(made / "model.onnx").metadata_props}
    assert {entry.key: entry.value for entry in onnx.load(made / f"{name}.onnx").metadata_props} == kept
    assert "fovea.manifest" in kept


def test_half_precision_is_half_the_size_and_int8_a_third(made: Path) -> None:
    sizes = {path.stem: path.stat().st_size for path in made.iterdir()}
    assert sizes["half"] < 0.55 * sizes["model"]
    assert sizes["x86"] < 0.35 * sizes["model"]


@pytest.mark.parametrize("count", [1, 5, 8, 19, 300])
def test_calibration_batches_are_never_ragged(count: int) -> None:
    images = np.arange(count, dtype=np.uint16).view(np.uint8).reshape(count, 1, 2, 1).repeat(3, axis=3)
    batches = CalibrationBatches(images)
    given = []
    while (batch := batches.get_next()) is not None:
        given.append(batch["image"])
    assert {len(batch) for batch in given} == {min(count, 8)}
    together = np.concatenate(given)
    assert len(np.unique(together, axis=0)) == len(together) > min(count, MAX_CALIBRATION_IMAGES) - 8
    assert len(together) <= MAX_CALIBRATION_IMAGES


def test_nothing_to_calibrate_on_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no images to calibrate int8 on"):
        quantize(made / "model.onnx", tmp_path / "q.onnx", np.zeros((0, 8, 8, 3), np.uint8), X86)
    with pytest.raises(SettingError, match="precision int8 is calibrated on real images"):
        check_precisions(["int8"], None)
    with pytest.raises(SettingError, match="precision 'int4' isn't known; expected fp32, int8, int8-gpu"):
        check_precisions(["int4"], None)


def test_the_quantizer_leaves_the_log_alone(made: Path, tmp_path: Path) -> None:
    level = logging.getLogger().level
    quantize(made / "model.onnx", tmp_path / "q.onnx", pictures(2, 0), X86)
    assert logging.getLogger().level == level


def test_the_command_line_offers_what_there_is() -> None:
    assert cli_export.PRECISIONS == PRECISIONS == ("fp32", *KINDS)


def test_what_is_measured_on_is_not_calibrated_on() -> None:
    images = pictures(10, 0)
    assert np.array_equal(held_apart(images, images[[0, 3]]), images[[1, 2, 4, 5, 6, 7, 8, 9]])
    with pytest.raises(ExportError, match="all 10 images to calibrate int8 on are among those"):
        held_apart(images, images)


def test_views_keep_their_label_and_are_all_different() -> None:
    images = EvaluationImages(pictures(3, 0), np.array([5, 6, 7]))
    more = images.at_least(20)
    assert more.labels is not None
    assert np.array_equal(more.pixels[:3], images.pixels)
    assert more.labels.tolist() == ([5, 6, 7] * 7)[:20]
    # One pixel up, down and across: 8 views that aren't the image.
    assert len(np.unique(more.pixels, axis=0)) > 12
    for view, label in zip(more.pixels, more.labels.tolist(), strict=True):
        assert np.array_equal(
            view[1:7, 1:7].mean((0, 1)).argmax(), images.pixels[label - 5].mean((0, 1)).argmax()
        )
    assert images.at_least(2) is images
    # An image's views don't depend on its place.
    turned = EvaluationImages(images.pixels[::-1], np.array([7, 6, 5])).at_least(18)
    for label in (5, 6, 7):
        assert turned.labels is not None
        mine, theirs = more.pixels[:18][more.labels[:18] == label], turned.pixels[turned.labels == label]
        assert np.array_equal(mine, theirs)


def test_a_folder_is_read_by_its_parts_and_labels(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "all", 4)
    write_class_folders(tmp_path / "parts" / "train", 3)
    write_class_folders(tmp_path / "parts" / "test", 2, seed=50)
    whole = evaluation_folder(tmp_path / "all", SPEC, CLASSES)
    assert whole.labels is not None
    assert Counter(whole.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert evaluation_folder(tmp_path / "all", SPEC, ("blue", "red")).labels is None
    assert evaluation_folder(tmp_path / "all" / "red", SPEC, CLASSES).labels is None
    assert len(evaluation_folder(tmp_path / "parts", SPEC, CLASSES).pixels) == 6
    assert calibration_folder(tmp_path / "parts", SPEC, 100).shape == (9, 8, 8, 3)
    assert calibration_folder(tmp_path / "all", SPEC, 5).shape == (5, 8, 8, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="no images in"):
        calibration_folder(tmp_path / "empty", SPEC, 5)


def test_a_runs_splits_are_found_again(trained: Trained) -> None:
    data = read_config(trained.run).data
    train, test = run_train_split(trained.run, data), run_test_split(trained.run, data)
    assert (len(train), len(test)) == (data.train_images, data.test_images) == (42, 9)
    assert not set(train.sources) & set(test.sources)
    for split in (train, test):
        names = [CLASSES[label] for label in split.labels.tolist()]
        assert names == [source.parent.name for source in split.sources if isinstance(source, Path)]


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    repository = tmp_path_factory.mktemp("variants")
    asked = ("--precision", "int8,fp16", "--precision", "int8-gpu")
    result = command("--run", trained.run, "--model-repository", repository, *asked)
    return repository / "lights-resnet20-cifar" / "1", result


def test_the_package_holds_what_was_asked_for(exported: tuple[Path, Result]) -> None:
    folder, result = exported
    assert result.exit_code == 0, result.output
    document = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(document, SCHEMA)
    entries = [(entry["file"], entry["precision"], entry["provider"]) for entry in document["variants"]]
    assert entries == [
        ("model.onnx", "fp32", "any"),
        ("model.int8.onnx", "int8", "cpu"),
        ("model.int8.gpu.onnx", "int8", "cuda"),
        ("model.fp16.onnx", "fp16", "cuda"),
    ]
    files = {path.name for path in folder.iterdir() if path.suffix != ".md"}
    assert files == {"manifest.json", *(entry[0] for entry in entries)}
    for entry in document["variants"][1:]:
        assert entry["agreement"]["images"] == 1000
        assert entry["agreement"]["reference_top1_accuracy"] > 0.5
        assert f"{entry['file']}\n" in result.output
    assert "int8: same top-1 " in result.output
    assert (
        "other precisions are measured on 9 images of the run's test split, and 991 shifted views of these: "
        "9 alone resolve 11.1 points, 1,000 resolve 0.1\n" in result.output
    )


def test_bf16_is_the_fp32_file_measured_on_openvino(trained: Trained, tmp_path: Path) -> None:
    bfloat16_or_skip()
    result = command("--run", trained.run, "--model-repository", tmp_path, "--precision", "bf16")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "lights-resnet20-cifar" / "1"
    fp32, bf16 = json.loads((folder / "manifest.json").read_text())["variants"]
    assert (bf16["file"], bf16["sha256"]) == (fp32["file"], fp32["sha256"])
    assert (bf16["precision"], bf16["provider"]) == ("bf16", "openvino")
    # Eight bits of mantissa: near, and not the same as float32.
    assert 1e-4 < bf16["agreement"]["max_relative_error"] < 0.05


@pytest.mark.parametrize("missing", ["instructions", "plugin"])
def test_bf16_where_it_cannot_run_is_refused_before_anything_is_made(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : sse avx2" + " avx512_bf16" * (missing == "plugin") + "\n")
    monkeypatch.setattr(runtime, "_CPU_INFO", cpuinfo)
    if missing == "plugin":
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    result = command("--run", trained.run, "--model-repository", tmp_path / "models", "--precision", "bf16")
    assert result.exit_code == 1
    expected = {"instructions": "neither avx512_bf16 nor amx_bf16", "plugin": "onnxruntime-ep-openvino isn't"}
    assert expected[missing] in result.output
    assert not (tmp_path / "models").exists()


def test_a_variant_that_fails_its_gate_is_left_out_and_the_others_published(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_badly(source: Path, target: Path) -> None:
        to_float16(source, target)
        model = onnx.load(target)
        for weight in model.graph.initializer:
            if weight.name == "model.fc.weight":
                weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
        onnx.save(model, target)

    monkeypatch.setattr(variants, "to_float16", convert_badly)
    result = command(
        *("--run", trained.run, "--model-repository", tmp_path, "--precision", "int8,fp16"),
        *("--calibration", trained.data),
    )
    assert result.exit_code == 1
    folder = tmp_path / "lights-resnet20-cifar" / "1"
    assert f"published {folder}" in result.output
    assert "fp16: same top-1 " in result.output
    assert "NOT published: same top-1 " in result.output
    assert "Error: fp16 disagrees with fp32 by more than a gate allows" in result.output
    precisions = [
        entry["precision"] for entry in json.loads((folder / "manifest.json").read_text())["variants"]
    ]
    assert precisions == ["fp32", "int8"]
    files = {path.name for path in folder.iterdir() if path.suffix != ".md"}
    assert files == {"manifest.json", "model.onnx", "model.int8.onnx"}


def test_int8_is_measured_on_openvino_too(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs there wherever the plugin is installed, so what is wrong there must not be published."""
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    images = EvaluationImages(pictures(200, 0))

    def wrong(file: Path, images: Pixels, batch_size: int, precision: str) -> runtime.Outputs:
        logits, embeddings = cpu_outputs(file, images, batch_size)
        return -logits, embeddings

    monkeypatch.setattr(runtime, "openvino_outputs", wrong)
    (variant,) = make_variants(tmp_path, ["int8"], pictures(20, 1000), images)
    assert any("same top-1" in failure for failure in variant.failures)
    assert not (tmp_path / "model.int8.onnx").exists()


def test_int8_that_fails_is_made_once_more_with_care(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def quantize_badly_at_first(
        source: Path, target: Path, images: Pixels, scheme: Scheme, *, careful: bool
    ) -> None:
        tried.append(careful)
        quantize(source, target, images if careful else np.zeros_like(images[:1]), scheme, careful=careful)

    monkeypatch.setattr(variants, "quantize", quantize_badly_at_first)
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    images = EvaluationImages(pictures(200, 0))
    (variant,) = make_variants(tmp_path, ["int8"], pictures(20, 1000), images)
    assert tried == [False, True]
    assert not variant.failures
    assert (tmp_path / "model.int8.onnx").exists()
    tried.clear()
    make_variants(tmp_path, ["fp16"], None, images)
    assert tried == []


def test_int8_for_gpus_is_measured_without_the_processors_own_int8_kernels(
    trained: Trained, tmp_path: Path
) -> None:
    """Theirs saturate where the processor has no VNNI; a GPU's don't."""
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    images = EvaluationImages(pictures(200, 0))
    (variant,) = make_variants(tmp_path, ["int8-gpu"], pictures(20, 1000), images)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    file, pixels = tmp_path / variant.kind.file, images.at_least(variant.agreement.images).pixels
    plain = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    logits, embeddings = plain.run(["logits", "embedding"], {"image": pixels})
    expected = agreement(cpu_outputs(tmp_path / "model.onnx", pixels, 32), (logits, embeddings))
    assert variant.agreement.max_relative_error == pytest.approx(expected.max_relative_error, rel=1e-4)
    assert variant.agreement.embedding_cosine == pytest.approx(expected.embedding_cosine, abs=1e-7)


def test_int8_without_openvino_is_measured_on_the_cpu(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    (variant,) = make_variants(tmp_path, ["int8"], pictures(20, 1000), EvaluationImages(pictures(200, 0)))
    assert not variant.failures
    assert (tmp_path / "model.int8.onnx").exists()


def test_calibration_on_black_fails_the_gate(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network calibrated on one black picture clips all that real ones make of it.

    With care, two layers in float32 are enough for this small one to keep its gate all the same.
    """

    def quantize_without_care(
        source: Path, target: Path, images: Pixels, scheme: Scheme, *, careful: bool
    ) -> None:
        quantize(source, target, images, scheme)

    monkeypatch.setattr(variants, "quantize", quantize_without_care)
    (tmp_path / "model.onnx").write_bytes((trained.package / "model.onnx").read_bytes())
    black = np.zeros((1, 8, 8, 3), np.uint8)
    images = EvaluationImages(pictures(200, 0))
    (variant,) = make_variants(tmp_path, ["int8"], black, images)
    assert variant.failures
    assert not (tmp_path / "model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int4"], "'int4'; expected one or more of fp32, int8, int8-gpu, fp16, bf16"),
        (["--precision", ""], "''; expected one or more of"),
        (["--calibration", "nowhere"], "does not exist"),
    ],
)
def test_options_that_cannot_be_used(arguments: list[str], message: str) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_weights_from_elsewhere_are_calibrated_on_a_folder(trained: Trained, tmp_path: Path) -> None:
    saved = load_checkpoint(trained.run / "checkpoints" / "best.pt").model
    torch.save(saved, tmp_path / "w.pth")
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES))
    told = (
        *("--weights", tmp_path / "w.pth", "--arch", "resnet20-cifar", "--labels", tmp_path / "labels.txt"),
        *("--input-size", 8, "--resize-size", 10, "--model-repository", tmp_path / "models"),
        *("--precision", "int8"),
    )
    result = command(*told)
    assert result.exit_code == 1
    assert (
        "precision int8 is calibrated on real images; name a folder of them with --calibration"
        in result.output
    )
    assert not (tmp_path / "models").exists()
    test = write_class_folders(tmp_path / "test", 8, seed=9000)
    result = command(*told, "--calibration", trained.data, "--images", test)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "models/resnet20-cifar/1/manifest.json").read_text())
    # Labels are known by the names of the folders.
    assert document["variants"][1]["agreement"]["reference_top1_accuracy"] > 0.5


def test_a_runs_splits_in_parts_are_found_again(trained: Trained, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_class_folders(data / "train", 3)
    test = write_class_folders(data / "Test", 2, seed=50)
    names = [path.relative_to(data).as_posix() for path in sorted(test.rglob("*.*"))]
    (tmp_path / "splits.json").write_text(json.dumps({"val": ["train/red/000.jpg"], "test": names}))
    config = replace(read_config(trained.run).data, source=str(data))
    assert len(run_train_split(tmp_path, config)) == 8
    assert run_test_split(tmp_path, config).labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(RunError, match="holds images of 'red', which the run didn't know"):
        run_train_split(tmp_path, replace(config, labels=("blue", "green")))
    shutil.rmtree(data)
    with pytest.raises(RunError, match="Name others with --images, and for int8 with --calibration"):
        run_train_split(tmp_path, config)


def test_what_touches_a_max_pooling_stays_float32(tmp_path: Path) -> None:
    """Where it doesn't, OpenVINO computes something else."""
    model = architecture("resnet18").build(3).eval()
    file, images = (
        tmp_path / "model.onnx",
        np.stack([np.asarray(picture(i % 3, i, 32, 32)) for i in range(8)]),
    )
    facts = dict.fromkeys(("name", "version", "architecture", "task", "schema_version"), "")
    write_graph(Served(model, Normalization((0.5,) * 3, (0.5,) * 3)).eval(), 32, 32, facts, file)
    assert len(around_max_pooling(onnx.load(file).graph)) == 4
    quantize(file, tmp_path / "q.onnx", images, X86)
    producer = nodes(tmp_path / "q.onnx")
    pool = next(node for node in producer.values() if node.op_type == "MaxPool")
    assert producer[pool.input[0]].op_type == "Relu"
    readers = [node for node in producer.values() if pool.output[0] in node.input]
    assert [node.op_type for node in readers] == ["Conv", "Add"]
