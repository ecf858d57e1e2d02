"""Sessions: the variant that fits, warm for every size they run, padded, checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from service.errors import ConfigError, InferenceFailed, ManifestError, ProviderUnavailable
from service.manifest import Manifest, read_manifest
from service.model_settings import ModelSettings
from service.processor import BF16_INSTRUCTIONS, INT8_INSTRUCTIONS, instruction_sets
from service.providers import missing
from service.session import ModelSession, Outputs, batch_sizes, open_sessions
from tests.packages import write_colors, write_network

needs_openvino = pytest.mark.skipif(bool(missing("openvino")), reason=missing("openvino"))
needs_int8 = pytest.mark.skipif(not INT8_INSTRUCTIONS & instruction_sets(), reason="a processor without VNNI")
needs_bf16 = pytest.mark.skipif(not BF16_INSTRUCTIONS & instruction_sets(), reason="a processor without bf16")
FAILED = {"top1_agreement": 0.5}


def settings(**changes: Any) -> ModelSettings:
    plain = {"execution_provider": "cpu", "intra_op_threads": 1, "compile_cache": "", "max_batch_size": 4}
    return ModelSettings(**{**plain, **changes})


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_network(tmp_path_factory.mktemp("models"), int8={}, bf16={}))


@pytest.fixture(scope="module")
def disagreeing(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_network(tmp_path_factory.mktemp("models"), int8=FAILED, bf16=FAILED))


def opened(manifest: Manifest, **changes: Any) -> tuple[str, str]:
    (session,) = open_sessions(manifest, settings(**changes))
    return session.execution_provider, session.precision


def test_outputs_are_finite_however_large_they_are() -> None:
    huge, small = np.full((2, 4), 1e30, np.float32), np.zeros((2, 4), np.float32)
    assert Outputs(huge, small).finite()
    assert Outputs(huge[0], small[0]).finite()
    for value in (np.nan, np.inf, -np.inf):
        broken = small.copy()
        broken[1, 2] = value
        assert not Outputs(huge, broken).finite()
        assert not Outputs(broken, huge).finite()


@needs_int8
def test_auto_takes_int8_whose_agreement_is_good(manifest: Manifest) -> None:
    assert opened(manifest) == ("CPUExecutionProvider", "int8")
    fp32, int8 = (open_sessions(manifest, settings(precision=p))[0].run(images(4)) for p in ("fp32", "int8"))
    assert not np.array_equal(fp32.logits, int8.logits)
    np.testing.assert_allclose(fp32.logits, int8.logits, atol=0.1)


def test_auto_passes_over_what_disagrees_and_says_so(disagreeing: Manifest) -> None:
    with capture_logs() as logs:
        assert opened(disagreeing) == ("CPUExecutionProvider", "fp32")
    (line,) = [line for line in logs if line["event"] == "variant_passed_over"]
    assert (line["model"], line["provider"], line["precision"]) == ("network", "cpu", "int8")


def test_what_is_asked_for_is_served_in_spite_of_its_agreement_with_a_warning(disagreeing: Manifest) -> None:
    with capture_logs() as logs:
        assert opened(disagreeing, precision="int8") == ("CPUExecutionProvider", "int8")
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert "top1_agreement 0.5 is below 0.98" in line["reason"]


@needs_openvino
@needs_int8
def test_openvino_is_autos_choice_on_a_processor(manifest: Manifest, disagreeing: Manifest) -> None:
    if not missing("cuda"):
        pytest.skip("a GPU is here")
    assert opened(manifest, execution_provider="auto") == ("OpenVINOExecutionProvider", "int8")
    assert opened(disagreeing, execution_provider="auto") == ("OpenVINOExecutionProvider", "fp32")


@needs_openvino
@needs_bf16
def test_bf16_is_the_fp32_file_with_fewer_bits(manifest: Manifest) -> None:
    fp32, bf16 = (
        open_sessions(manifest, settings(execution_provider="openvino", precision=precision))[0]
        for precision in ("fp32", "bf16")
    )
    assert bf16.precision == "bf16"
    exact, rough = fp32.run(images(4)), bf16.run(images(4))
    assert np.abs(exact.logits - rough.logits).max() > 1e-4
    np.testing.assert_allclose(exact.logits, rough.logits, atol=0.05)


@needs_openvino
def test_the_compile_cache_is_filled(manifest: Manifest, tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        opened(manifest, execution_provider="openvino", precision=precision, compile_cache=str(tmp_path))
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(file.parts[:2] for file in files) == [("openvino", "fp32"), ("openvino", "int8")]


@needs_openvino
def test_every_file_has_a_compile_cache_of_its_own(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for write in (write_network, write_colors):
        package = read_manifest(write(tmp_path / "models"))
        opened(package, execution_provider="openvino", precision="fp32", compile_cache=str(cache))
        assert any((cache / "openvino" / "fp32" / package.variants[0].sha256[:32]).iterdir())


@needs_openvino
def test_a_compile_cache_that_cannot_be_used_is_no_reason_for_a_slower_provider(
    manifest: Manifest, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"compile_cache is .* can't be written to"):
        opened(manifest, execution_provider="auto", compile_cache=str(file))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_named_and_missing_is_an_error(manifest: Manifest, provider: str) -> None:
    if not missing(provider):
        pytest.skip(f"{provider} is here")
    with pytest.raises(ProviderUnavailable, match=f"execution_provider is '{provider}', but"):
        open_sessions(manifest, settings(execution_provider=provider))


def test_a_precision_that_no_provider_has_is_an_error(manifest: Manifest) -> None:
    if not missing("cuda"):
        pytest.skip("a GPU is here")
    with pytest.raises(
        ProviderUnavailable,
        match=r"nothing runs it with .* precision 'fp16': .*cuda: .*onnxruntime.*no such variant for cpu",
    ):
        open_sessions(manifest, settings(execution_provider="auto", precision="fp16"))


def test_instances_are_sessions_of_their_own(manifest: Manifest) -> None:
    sessions = open_sessions(manifest, settings(instances=3))
    assert len({id(session) for session in sessions}) == 3
    outputs = [session.run(images(2)).logits for session in sessions]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("provider", "largest", "sizes"),
    [
        ("cpu", 5, (1, 2, 3, 4, 5)),
        ("openvino", 16, tuple(range(1, 17))),
        ("openvino", 24, (1, 2, 4, 8, 16, 24)),
        ("cuda", 1, (1,)),
        ("cuda", 8, (1, 2, 4, 8)),
        ("tensorrt", 48, (1, 2, 4, 8, 16, 32, 48)),
    ],
)
def test_batch_sizes(provider: str, largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(provider, largest) == sizes


class Recorder:
    """Runs as a session does, and remembers the sizes."""

    def __init__(self, session: ModelSession) -> None:
        self._runs, self.sizes = session._runs, list[int]()
        session._runs = self

    def __call__(self, batch: NDArray[np.uint8]) -> list[NDArray[np.generic]]:
        self.sizes.append(len(batch))
        return self._runs(batch)


@needs_openvino
@pytest.mark.parametrize("largest", [3, 24])
def test_no_request_pays_for_a_new_shape(manifest: Manifest, largest: int) -> None:
    changes = {"execution_provider": "openvino", "max_batch_size": largest}
    (session,) = open_sessions(manifest, settings(**changes))
    recorder = Recorder(session)
    seconds = session.warm_up()
    warm = set(recorder.sizes)
    assert tuple(seconds) == session.batch_sizes
    assert warm == set(session.batch_sizes)
    assert all(value > 0 for value in seconds.values())
    recorder.sizes.clear()
    for count in range(1, largest + 1):
        session.run(images(count))
    assert set(recorder.sizes) <= warm


def test_the_cpu_is_timed_at_powers_of_two_and_the_largest(manifest: Manifest) -> None:
    (session,) = open_sessions(manifest, settings(max_batch_size=6))
    assert session.batch_sizes == (1, 2, 3, 4, 5, 6)
    assert tuple(session.warm_up()) == (1, 2, 4, 6)


@needs_openvino
@pytest.mark.parametrize("count", [1, 17, 20, 23])
def test_padding_gives_the_same_rows(manifest: Manifest, count: int) -> None:
    padded = open_sessions(
        manifest, settings(execution_provider="openvino", precision="fp32", max_batch_size=24)
    )[0]
    exact = open_sessions(manifest, settings(precision="fp32", max_batch_size=24))[0]
    ours, theirs = padded.run(images(count)), exact.run(images(count))
    assert ours.logits.shape == (count, 3)
    assert ours.embedding.shape == (count, 8)
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.embedding, theirs.embedding, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 5])
def test_a_batch_of_a_wrong_size_is_refused(manifest: Manifest, count: int) -> None:
    (session,) = open_sessions(manifest, settings())
    with pytest.raises(InferenceFailed, match=f"a batch of {count} images; expected 1 to 4"):
        session.run(images(count))


def test_a_variant_that_was_tampered_with_stops_auto_too(tmp_path: Path) -> None:
    folder = write_network(tmp_path, int8={})
    path = folder / "model.int8.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ManifestError, match=r"model\.int8\.onnx: its sha256 is .*; the manifest says"):
        open_sessions(read_manifest(folder), settings(precision="int8"))
    if INT8_INSTRUCTIONS & instruction_sets():
        with pytest.raises(ManifestError, match="the manifest says"):
            open_sessions(read_manifest(folder), settings())


def test_an_int8_file_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = write_network(tmp_path, int8={})
    document = json.loads((folder / "manifest.json").read_text())
    document["outputs"]["logits"]["name"] = "scores"
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="expected 'scores' with 3 values per image"):
        open_sessions(read_manifest(folder), settings(precision="int8"))
