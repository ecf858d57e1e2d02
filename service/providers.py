"""Which execution provider runs a model: the one that was asked for, really active, or an error."""

import ctypes
from pathlib import Path

import onnxruntime

from service.errors import ManifestError, ProviderUnavailable

_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def create_session(
    model_file: Path, execution_provider: str, intra_op_threads: int
) -> onnxruntime.InferenceSession:
    """Open a model on an execution provider.

    ONNX Runtime falls back to the CPU with only a log line; here that is an error.

    Args:
        model_file: an ONNX file.
        execution_provider: "auto" (CUDA where a driver and the library are there, else CPU), "cuda"
            or "cpu".
        intra_op_threads: of one run.

    Raises:
        ProviderUnavailable: names what is missing.
        ManifestError: ONNX Runtime can't load the file.
    """
    provider = _choose(execution_provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    # Idle workers that spin would take the cores from decoding and from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    settings: dict[str, str] = {"cudnn_conv_algo_search": "HEURISTIC"} if provider == "cuda" else {}
    try:
        session = onnxruntime.InferenceSession(
            str(model_file), options, providers=[(_NAMES[provider], settings)]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ManifestError(f"{model_file}: ONNX Runtime can't load it: {error}") from error
    if session.get_providers()[0] != _NAMES[provider]:
        raise ProviderUnavailable(f"execution_provider is {provider!r}, but {_why_not_cuda()}")
    return session


def _choose(execution_provider: str) -> str:
    missing = _cuda_missing()
    if execution_provider == "auto":
        return "cpu" if missing else "cuda"
    if execution_provider == "cuda" and missing:
        raise ProviderUnavailable(
            f"execution_provider is 'cuda', but {missing}; use 'auto' or 'cpu' on a machine without a GPU"
        )
    return execution_provider


def _cuda_missing() -> str:
    """What CUDA lacks before a session is tried; empty if nothing."""
    if _NAMES["cuda"] not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime {onnxruntime.__version__} has no CUDA: install onnxruntime-gpu"
    return _load_error("libcuda.so.1") and "libcuda.so.1 can't be loaded: there is no NVIDIA driver"


def _why_not_cuda() -> str:
    """Why ONNX Runtime didn't activate CUDA although a driver is there."""
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    reason = _load_error(str(library)) or "its log on stderr says why"
    return f"ONNX Runtime {onnxruntime.__version__} didn't activate it: {reason}"


def _load_error(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""
