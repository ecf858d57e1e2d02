"""TensorRT: what it needs, and its options."""

import functools

import onnxruntime

from service.engines.libraries import load_error
from service.engines.plan import SessionPlan

_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")
NAME = "TensorrtExecutionProvider"


@functools.cache
def missing() -> str:
    """What TensorRT lacks here, CUDA aside; empty if nothing."""
    version = onnxruntime.__version__
    if NAME not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime {version} has no TensorRT: install onnxruntime-gpu"
    # `pip install tensorrt` has them where only Python looks.
    reason = next(filter(None, (load_error(name, "tensorrt_libs") for name in _LIBRARIES)), "")
    return reason and f"onnxruntime {version} needs TensorRT 10: {reason}"


def options(plan: SessionPlan) -> dict[str, str]:
    """The provider's options; see ONNX Runtime's documentation of the TensorRT execution provider."""
    chosen = {
        "device_id": str(plan.device),
        "trt_profile_min_shapes": profile(plan, plan.batch_sizes[0]),
        "trt_profile_opt_shapes": profile(plan, plan.batch_sizes[-1]),
        "trt_profile_max_shapes": profile(plan, plan.batch_sizes[-1]),
        "trt_fp16_enable": str(int(plan.precision == "fp16")),
        "trt_int8_enable": str(int(plan.precision == "int8")),
        "trt_cuda_graph_enable": str(int(plan.settings.cuda_graphs)),
    }
    if plan.cache:
        chosen |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(plan.cache),
            # An engine fits one profile and one precision only, and its name holds neither.
            "trt_engine_cache_prefix": f"{plan.model_file.stem}-{plan.precision}-{plan.batch_sizes[-1]}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(plan.cache),
        }
    return chosen


def profile(plan: SessionPlan, batch_size: int) -> str:
    """A shape of the input as TensorRT's profiles have it: image:8x224x224x3."""
    return f"{plan.input_name}:{'x'.join(map(str, (batch_size, *plan.image_shape)))}"
