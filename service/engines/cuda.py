"""CUDA: what it needs, and its options."""

import functools

import onnxruntime

from service.engines.libraries import load_error
from service.engines.plan import SessionPlan

NAME = "CUDAExecutionProvider"


@functools.cache
def missing() -> str:
    """What CUDA lacks here; empty if nothing."""
    version = onnxruntime.__version__
    if NAME not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime {version} has no CUDA: install onnxruntime-gpu"
    if load_error("libcuda.so.1"):
        return (
            "libcuda.so.1 can't be loaded: there is no NVIDIA driver "
            f"(onnxruntime {version} needs CUDA {_cuda_version()} and cuDNN 9)"
        )
    major = _cuda_version().partition(".")[0]
    names = [f"lib{name}.so.{major}" for name in ("cudart", "cublasLt", "cublas")] + ["libcudnn.so.9"]
    # The nvidia-… packages have them where only Python looks.
    reasons = filter(None, (load_error(name, "nvidia") for name in names))
    reason = next(reasons, "")
    return reason and f"onnxruntime {version} needs CUDA {_cuda_version()} and cuDNN 9: {reason}"


def _cuda_version() -> str:
    return str(getattr(onnxruntime, "cuda_version", "") or "12")


def options(plan: SessionPlan) -> dict[str, str]:
    """The provider's options; see ONNX Runtime's documentation of the CUDA execution provider.

    HEURISTIC: the exhaustive search, its default, tries every algorithm for seconds per new shape. The
    arena grows by what is asked for, instead of doubling.
    """
    settings = plan.settings
    chosen = {
        "device_id": str(plan.device),
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": str(int(settings.prefer_nhwc)),
        "enable_cuda_graph": str(int(settings.cuda_graphs)),
        # fp32 means fp32: TF32 keeps 10 bits of the mantissa.
        "use_tf32": "0",
    }
    if settings.gpu_mem_limit_bytes:
        chosen["gpu_mem_limit"] = str(settings.gpu_mem_limit_bytes)
    return chosen
