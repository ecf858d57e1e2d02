"""A provider that is asked for really runs, or the error names what is missing."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from service import providers
from service.engines import openvino
from service.engines.plan import SessionPlan
from service.errors import ManifestError, ProviderUnavailable
from service.model_settings import ModelSettings
from service.providers import candidates, create_session, missing, on_gpu
from tests.packages import write_network

needs_openvino = pytest.mark.skipif(bool(missing("openvino")), reason=missing("openvino"))
without_gpu = pytest.mark.skipif(not missing("cuda"), reason="a GPU is here")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SessionPlan:
    folder = write_network(tmp_path_factory.mktemp("models"))
    settings = ModelSettings(intra_op_threads=1)
    return SessionPlan(folder / "model.onnx", "cpu", "fp32", "image", (8, 8, 3), (1, 2), settings)


def logits(session: onnxruntime.InferenceSession) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    batch = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    return np.asarray(session.run(["logits"], {"image": batch})[0])


@needs_openvino
def test_openvino_runs_every_node(plan: SessionPlan) -> None:
    session = create_session(replace(plan, provider="openvino"))
    assert session.get_providers()[0] == "OpenVINOExecutionProvider"
    parts = session.get_provider_graph_assignment_info()
    assert {part.ep_name for part in parts} == {"OpenVINOExecutionProvider"}
    operators = {node.op_type for part in parts for node in part.get_nodes()}
    assert {"Conv", "Gemm", "LpNormalization"} <= operators


@needs_openvino
def test_openvino_computes_at_the_precision_that_is_asked_for(plan: SessionPlan) -> None:
    on_cpu = logits(create_session(plan))
    fp32 = logits(create_session(replace(plan, provider="openvino")))
    np.testing.assert_allclose(fp32, on_cpu, rtol=1e-4, atol=1e-5)
    if not openvino.devices()[0].ep_metadata["OPTIMIZATION_CAPABILITIES"].count("BF16"):
        pytest.skip("this processor has no bf16")
    bf16 = logits(create_session(replace(plan, provider="openvino", precision="bf16")))
    assert np.abs(bf16 - on_cpu).max() > 1e-4  # really fewer bits
    np.testing.assert_allclose(bf16, on_cpu, rtol=0.05, atol=0.05)


@needs_openvino
def test_openvino_keeps_what_it_compiled_and_reads_it_again(plan: SessionPlan, tmp_path: Path) -> None:
    cached = replace(plan, provider="openvino", cache=tmp_path)
    first = logits(create_session(cached))
    (blob,) = tmp_path.iterdir()
    written = blob.stat()
    second = logits(create_session(cached))
    assert [path.name for path in tmp_path.iterdir()] == [blob.name]
    assert blob.stat().st_mtime_ns == written.st_mtime_ns  # read, not written anew
    assert blob.stat().st_atime_ns >= written.st_atime_ns
    np.testing.assert_array_equal(first, second)


@needs_openvino
def test_openvino_survives_a_cache_that_was_cut_short(plan: SessionPlan, tmp_path: Path) -> None:
    cached = replace(plan, provider="openvino", cache=tmp_path)
    first = logits(create_session(cached))
    (blob,) = tmp_path.iterdir()
    blob.write_bytes(blob.read_bytes()[:1000])
    np.testing.assert_array_equal(logits(create_session(cached)), first)


@pytest.mark.parametrize(
    ("maker", "number", "words"),
    [
        ("AMD", 0x1022, "takes no other: this one's maker is 'AMD'"),
        ("Intel", 0x8086, "finds no processor that it can use"),
    ],
)
def test_a_processor_that_openvino_does_not_take_is_named(
    maker: str, number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_ep_openvino")
    kind = onnxruntime.OrtHardwareDeviceType
    offered = [
        SimpleNamespace(
            ep_name=f"{vendor}'s", device=SimpleNamespace(type=type_, vendor=vendor, vendor_id=vendor_id)
        )
        for vendor, vendor_id, type_ in ((maker, number, kind.CPU), ("Else", 0x10DE, kind.GPU))
    ]
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: offered)
    said = openvino.missing.__wrapped__()
    assert said.startswith(
        f"the plugin onnxruntime-ep-openvino {version('onnxruntime-ep-openvino')} finds no"
    )
    assert words in said
    assert "Else" not in said


@without_gpu
@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("cuda", r"'cuda', but .*(libcuda\.so\.1 can't be loaded|has no CUDA: install onnxruntime-gpu)"),
        ("tensorrt", r"'tensorrt', but .*(TensorRT 10: libnvinfer\.so\.10|has no TensorRT)"),
    ],
)
def test_what_is_not_here_is_named_with_library_and_version(provider: str, words: str) -> None:
    with pytest.raises(ProviderUnavailable, match=words) as caught:
        candidates(provider)
    assert onnxruntime.__version__ in str(caught.value)


@without_gpu
def test_a_session_that_fell_back_is_an_error(plan: SessionPlan) -> None:
    # As when the check beforehand saw nothing wrong: ONNX Runtime itself only logs, and takes the CPU.
    with pytest.raises((ProviderUnavailable, ManifestError), match="CUDAExecutionProvider"):
        create_session(replace(plan, provider="cuda"))


def test_auto_takes_what_is_there_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"tensorrt": "no libnvinfer", "cuda": "", "openvino": "", "cpu": ""}
    monkeypatch.setattr(providers, "missing", lambda name: lacking[name])
    assert candidates("auto") == ("cuda", "openvino", "cpu")
    assert candidates("openvino") == ("openvino",)
    assert on_gpu(ModelSettings())
    assert not on_gpu(ModelSettings(precision="bf16"))  # which no GPU provider runs: OpenVINO will
    lacking["cuda"] = "no driver"
    assert candidates("auto") == ("openvino", "cpu")
    assert not on_gpu(ModelSettings())
    assert on_gpu(ModelSettings(execution_provider="cuda"))
    with pytest.raises(ProviderUnavailable, match="execution_provider is 'tensorrt', but no libnvinfer"):
        candidates("tensorrt")


def test_work_that_is_left_to_the_cpu_is_an_error(plan: SessionPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    # The names swapped: a session on the CPU that should be elsewhere, with every node placed for real.
    monkeypatch.setitem(providers.NAMES, "openvino", "CPUExecutionProvider")
    monkeypatch.setattr(openvino, "register", lambda plan, options: None)
    with pytest.raises(ProviderUnavailable, match=r"left Conv, Gemm of .* to the CPU"):
        create_session(replace(plan, provider="openvino"))


def test_a_broken_file_is_named(plan: SessionPlan, tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ManifestError, match=r"model\.onnx: ONNX Runtime .* can't load it"):
        create_session(replace(plan, model_file=broken))
