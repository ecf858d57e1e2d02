"""What each execution provider is told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from service.engines import cuda, openvino, tensorrt
from service.engines.plan import SessionPlan
from service.model_settings import ModelSettings

PLAN = SessionPlan(
    Path("m/model.onnx"), "cuda", "fp32", "image", (224, 192, 3), (1, 2, 4, 6), ModelSettings(), 3
)


def test_cuda_searches_by_heuristic_and_grows_by_what_is_asked() -> None:
    assert cuda.options(PLAN) == {
        "device_id": "3",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": "0",
        "enable_cuda_graph": "0",
        "use_tf32": "0",
    }


def test_cuda_takes_the_models_settings() -> None:
    settings = ModelSettings(gpu_mem_limit_bytes=2**31, cuda_graphs=True, prefer_nhwc=True)
    options = cuda.options(replace(PLAN, settings=settings))
    assert options["gpu_mem_limit"] == "2147483648"
    assert (options["enable_cuda_graph"], options["prefer_nhwc"]) == ("1", "1")


def test_tensorrt_has_a_profile_from_the_batch_sizes() -> None:
    options = tensorrt.options(PLAN)
    assert options["trt_profile_min_shapes"] == "image:1x224x192x3"
    assert options["trt_profile_opt_shapes"] == "image:6x224x192x3"
    assert options["trt_profile_max_shapes"] == "image:6x224x192x3"
    assert not any("cache" in name for name in options)


def test_tensorrt_keeps_engines_and_timings() -> None:
    options = tensorrt.options(replace(PLAN, cache=Path("/c"), precision="fp16"))
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == "/c"
    assert options["trt_engine_cache_prefix"] == "model-fp16-6"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("1", "0")
    assert tensorrt.options(replace(PLAN, precision="int8"))["trt_int8_enable"] == "1"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_openvino_is_always_told_the_precision(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    instructions = frozenset({"avx2", "amx_bf16"} if has_bf16 else {"avx2"})
    monkeypatch.setattr(openvino, "instruction_sets", lambda: instructions)
    settings = ModelSettings(intra_op_threads=3)
    # What an int8 model leaves in float32 runs in bf16 where the processor can.
    hints = {"fp32": "f32", "int8": "bf16", "bf16": "bf16"} if has_bf16 else {"fp32": "f32", "int8": "f32"}
    for precision, hint in hints.items():
        options = openvino.options(replace(PLAN, precision=precision, settings=settings))
        assert json.loads(options["load_config"])["CPU"] == {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": "3",
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": "NO",
        }
    config = openvino.options(replace(PLAN, cache=Path("/c")))["load_config"]
    assert json.loads(config)["CPU"]["CACHE_DIR"] == "/c"
