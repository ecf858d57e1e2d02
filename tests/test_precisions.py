"""What training publishes as a variant is what the service runs, provider by provider."""

from pathlib import Path

import fovea
import numpy as np
import pytest

from service.manifest import Manifest, read_manifest
from service.model_settings import ModelSettings
from service.providers import missing
from service.session import open_sessions
from tests.precision_packages import colorful, write_precisions
from tests.servers import ServerProcess
from training import runtime
from training.errors import ExportError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    precisions = ["int8", "int8-gpu", "fp16", "bf16"]
    try:
        runtime.check_bfloat16()
    except ExportError:
        precisions.remove("bf16")
    folder, variants = write_precisions(tmp_path_factory.mktemp("models"), precisions)
    assert [variant.failures for variant in variants] == [()] * len(precisions)
    return read_manifest(folder)


@pytest.mark.parametrize(
    ("provider", "precision", "largest_error"),
    [
        ("cpu", "fp32", 1e-6),
        ("cpu", "int8", 0.02),
        ("cpu", "fp16", 1e-3),
        ("openvino", "int8", 0.02),
        ("openvino", "bf16", 0.02),
        ("openvino", "fp16", 1e-3),
    ],
)
def test_the_service_computes_what_was_measured(
    manifest: Manifest, provider: str, precision: str, largest_error: float
) -> None:
    if lacking := missing(provider):
        pytest.skip(lacking)
    if precision not in {variant.precision for variant in manifest.variants}:
        pytest.skip(f"this machine can't measure {precision}")
    images = colorful(8, 77)
    settings = ModelSettings(execution_provider=provider, precision=precision, compile_cache="")
    (session,) = open_sessions(manifest, settings)
    assert session.precision == precision
    outputs = session.run(images)
    logits, embeddings = runtime.cpu_outputs(manifest.folder / "model.onnx", images, 8)
    error = np.abs(outputs.logits - logits).max() / np.abs(logits).max()
    assert error <= largest_error
    assert (precision == "fp32") == np.array_equal(outputs.embedding, embeddings)
    assert np.einsum("nd,nd->n", outputs.embedding, embeddings).min() > 0.999


def test_fp16_is_served_without_a_gpu(manifest: Manifest, tmp_path: Path) -> None:
    images = colorful(8, 77)
    logits, embeddings = runtime.cpu_outputs(manifest.folder / "model.fp16.onnx", images, 1)
    repository = manifest.folder.parents[1]
    with (
        ServerProcess(repository, tmp_path / "index", "--precision", "fp16") as server,
        fovea.Client(server.address) as client,
    ):
        assert client.model().precision == "fp16"
        named = [client.classify(image, include_logits=True) for image in images]
        embedded = [client.embed(image) for image in images]
    (warning,) = [line for line in server.logs if line["event"] == "precision_warning"]
    assert (warning["level"], warning["precision"]) == ("warning", "fp16")
    assert "slower than fp32" in warning["reason"]
    np.testing.assert_allclose(
        np.stack([one.logits for one in named if one.logits is not None]), logits, rtol=1e-6
    )
    np.testing.assert_allclose([one.vector for one in embedded], embeddings, atol=1e-6)
