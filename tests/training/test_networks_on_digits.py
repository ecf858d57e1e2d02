"""ZFNet, Network in Network and the capsule network, narrow ones: from the digits to a server's answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from tests.servers import ServerProcess
from tests.training.evaluate.test_targets import assert_same as assert_same_numbers
from tests.training.pictures import write_class_folders
from tests.training.test_resume import Killed, anything, assert_same, killed_at, silent
from training.agreement import agreement
from training.cli import main
from training.config import read_config
from training.digits import digits
from training.evaluate.data import run_pictures
from training.evaluate.evaluation import Evaluation, evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.run import RunTarget
from training.evaluate.server import ServerTarget
from training.half import to_float16
from training.models import ARCHITECTURES, architecture
from training.models.capsnet import CapsNet
from training.models.nin import NiN
from training.models.zfnet import ZFNet
from training.normalization import Normalization
from training.options import FitOptions
from training.quantize import GPU, X86, quantize
from training.report.gradcam import gradcam
from training.run_model import load_run_model
from training.runtime import cpu_outputs
from training.train import fit, resume

# A few channels learn digits in seconds; what is tested is the same for all widths.
NARROW: dict[str, Any] = {
    "zfnet": partial(ZFNet, channels=(24, 48, 64, 64, 48), hidden=128),
    "nin": partial(NiN, widths=((32, 24, 24), (32, 32, 32), (32, 32))),
    "capsnet": partial(CapsNet, channels=16, types=4),
}
# Few steps of narrow networks learn more without dropout.
SHORT = ("--batch-size", "16", "--dropout", "0", "--trackers", "none")
EPOCHS = {"zfnet": 4, "nin": 4, "capsnet": 1}
SIDES = {"zfnet": 31, "nin": 16, "capsnet": 28}
MAPS = {"zfnet": (48, 1, 1), "nin": (32, 4, 4), "capsnet": (32, 6, 6)}


@dataclass(frozen=True)
class Trained:
    """A run on the digits, and its package."""

    run: Path
    package: Path


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, build in NARROW.items():
            patch.setitem(ARCHITECTURES, name, replace(architecture(name), build=build))
        yield


@pytest.fixture(scope="module")
def trained(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    work = tmp_path_factory.mktemp("networks")
    found = {}
    for name in NARROW:
        run = work / name
        for command in (
            ("fit", "--data", "digits", "--arch", name, "--epochs", EPOCHS[name], *SHORT, "--output", run),
            ("export", "--run", run, "--model-repository", work / "models"),
        ):  # fmt: skip
            result = CliRunner().invoke(main, [str(argument) for argument in command])
            assert result.exit_code == 0, result.output
        found[name] = Trained(run, work / "models" / f"digits-{name}" / "1")
    return found


@pytest.fixture(scope="module")
def server(trained: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = trained["nin"].package.parents[1]
    with ServerProcess(
        repository, tmp_path_factory.mktemp("index"), "--default-model", "digits-nin"
    ) as process:
        yield process


@pytest.mark.parametrize("name", NARROW)
def test_learns_the_digits(trained: dict[str, Trained], name: str) -> None:
    summary = json.loads((trained[name].run / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.7
    config = read_config(trained[name].run)
    assert config.preprocessing.crop_height == SIDES[name]
    assert config.embedding.loss == ("margin" if name == "capsnet" else "cross-entropy")


@pytest.mark.parametrize("name", NARROW)
def test_int8_and_fp16_keep_the_answers(trained: dict[str, Trained], name: str, tmp_path: Path) -> None:
    source = trained[name].package / "model.onnx"
    side = SIDES[name]
    parts = (np.asarray(part.sources) for part in (digits().train, digits().test))
    known, new = (part[:64].repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side] for part in parts)
    quantize(source, tmp_path / "x86.onnx", known, X86)
    quantize(source, tmp_path / "gpu.onnx", known, GPU)
    to_float16(source, tmp_path / "half.onnx")
    reference = cpu_outputs(source, new, 8)
    for file, least in (("x86", 0.99), ("gpu", 0.99), ("half", 0.9999)):
        outputs = cpu_outputs(tmp_path / f"{file}.onnx", new, 8, as_written=file == "gpu")
        measured = agreement(reference, outputs)
        assert measured.embedding_cosine > least, (file, str(measured))
        assert measured.max_relative_error < 0.15, (file, str(measured))


@pytest.mark.parametrize("name", NARROW)
def test_onnx_runtime_gives_the_same_answers(trained: dict[str, Trained], name: str) -> None:
    loaded = load_run_model(trained[name].run)
    normalization = loaded.config.normalization
    session = onnxruntime.InferenceSession(
        trained[name].package / "model.onnx", providers=["CPUExecutionProvider"]
    )
    side = SIDES[name]
    for count in (1, 5):
        pixels = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
        logits, embedding = session.run(["logits", "embedding"], {"image": pixels})
        with torch.inference_mode():
            inputs = Normalization(normalization.mean, normalization.std)(torch.from_numpy(pixels))
            features = loaded.model.features(inputs)
            expected = loaded.model(inputs).numpy()
            unit = torch.nn.functional.normalize(features).numpy()
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
        assert np.allclose(embedding, unit, atol=1e-4)


@pytest.mark.parametrize("name", NARROW)
def test_run_package_and_server_give_the_same_numbers(
    trained: dict[str, Trained], server: ServerProcess, name: str
) -> None:
    pictures = run_pictures(trained[name].run)
    with ServerTarget(server.address, f"digits-{name}") as served:
        run, *others = (
            evaluate(target, pictures)
            for target in (
                RunTarget(trained[name].run, device="cpu"),
                PackageTarget(trained[name].package),
                served,
            )
        )
    assert isinstance(run, Evaluation)
    for other in others:
        assert_same_numbers(run, other)
    # Probabilities that mean something: as sure as right, within what 450 images can tell.
    assert run.numbers["ece"] < 0.12


@pytest.mark.parametrize("name", NARROW)
def test_grad_cam_has_the_maps_to_look_at(trained: dict[str, Trained], name: str) -> None:
    loaded = load_run_model(trained[name].run)
    told = loaded.config.normalization
    normalization = Normalization(told.mean, told.std)
    side = SIDES[name]
    sources = np.asarray(digits().test.sources)[:6]
    pixels = np.ascontiguousarray(sources.repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side])
    with torch.inference_mode():
        assert loaded.model.feature_maps(normalization(torch.from_numpy(pixels))).shape[1:] == MAPS[name]
        said = loaded.model(normalization(torch.from_numpy(pixels))).argmax(1).numpy()
    heat = gradcam(loaded.model, normalization, pixels, said, torch.device("cpu"))
    assert heat.shape == (6, side, side)
    assert np.isfinite(heat).all()
    assert (heat.max(axis=(1, 2)) > 0.99).any()


@pytest.mark.parametrize("name", NARROW)
def test_a_killed_run_ends_as_if_nothing_had_been(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, (part, count) in enumerate((("train", 8), ("val", 3), ("test", 3))):
        write_class_folders(tmp_path / "lights" / part, count, seed=100 * seed)
    told = FitOptions(
        str(tmp_path / "lights"), arch=name, input_size=SIDES[name], epochs=2, batch_size=8, workers=0,
        threads=1, mixup=0.2, cutmix=1.0, ema_decay=0.9, checkpoint_every_steps=2, trackers=(),
    )  # fmt: skip
    fit(replace(told, output=tmp_path / "whole"), silent)
    with monkeypatch.context() as patch:
        killed_at(patch, 6)
        with pytest.raises(Killed):
            fit(replace(told, output=tmp_path / "run"), silent)
    torch.manual_seed(99)  # whatever the new process has drawn before
    resume(tmp_path / "run", anything, silent)
    assert_same(tmp_path / "run", tmp_path / "whole")
