"""ONNX Runtime, for checking what was exported: on its own CPU kernels, or through OpenVINO's plugin."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import ExportError
from training.graph import EMBEDDING, INPUT, LOGITS

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Logits float32 [count, classes], [count, 0] of a graph without classes, and embeddings float32 [count,
embedding_dimension]."""

_OPENVINO = "OpenVINOExecutionProvider"
# Not the provider's own name, which the service gives it: a name can be given once in a process.
_REGISTERED_AS = "training-openvino"
_CPU_INFO = Path("/proc/cpuinfo")
# As Linux names what multiplies bfloat16.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def onnxruntime_module() -> ModuleType:
    """ONNX Runtime, which training itself doesn't need.

    Raises:
        ExportError: it isn't installed; names what to install.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(
            "ONNX Runtime isn't installed, so the package can't be checked; "
            "install fovea-serving[serve] or fovea-serving[serve-cpu] beside fovea-serving[train]"
        ) from None
    module: ModuleType = onnxruntime
    return module


def cpu_outputs(
    file: Path, images: NDArray[np.uint8], batch_size: int, *, as_written: bool = False
) -> Outputs:
    """What ONNX Runtime's CPU kernels compute.

    Args:
        file: an exported graph.
        images: uint8 [count, height, width, 3], at least one.
        batch_size: images a run.
        as_written: as in `cpu_session`.

    Raises:
        ExportError: ONNX Runtime isn't installed.
    """
    return _outputs(cpu_session(str(file), as_written=as_written), images, batch_size)


def only_as_written(precision: str, provider: str) -> bool:
    """Whether a variant is to be computed `as_written`: int8 that is made for GPUs."""
    return precision == "int8" and provider == "cuda"


def cpu_session(model: str | bytes, *, as_written: bool = False) -> Any:
    """A session on the CPU kernels, with PyTorch's number of threads.

    Args:
        model: path of a file, or its content.
        as_written: fuse no operators. An int8 graph is then computed in float32 between its quantizations,
            as exact as a GPU's integers are; the CPU's own int8 kernels saturate on processors without
            VNNI.

    Raises:
        ExportError: ONNX Runtime isn't installed.
    """
    runtime = onnxruntime_module()
    options = runtime.SessionOptions()
    if as_written:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_outputs(file: Path, images: NDArray[np.uint8], batch_size: int, precision: str) -> Outputs:
    """What OpenVINO computes on this processor; as `cpu_outputs`.

    Args:
        file, images, batch_size: as there.
        precision: OpenVINO's name of what float32 layers are computed in, 'f32' or 'bf16'. Without it
            OpenVINO takes bfloat16 wherever the processor has it.

    Raises:
        ExportError: the plugin is missing, or the graph wouldn't run on it.
    """
    runtime = onnxruntime_module()
    devices = _openvino_devices(runtime)
    settings = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "INFERENCE_PRECISION_HINT": precision}
    options = runtime.SessionOptions()
    options.add_provider_for_devices(devices, {"load_config": json.dumps({"CPU": settings})})
    try:
        session = runtime.InferenceSession(str(file), options)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(f"OpenVINO can't load {file.name}: {error}") from error
    if session.get_providers()[0] != _OPENVINO:
        raise ExportError(f"OpenVINO doesn't run {file.name}; ONNX Runtime took {session.get_providers()[0]}")
    return _outputs(session, images, batch_size)


def int8_outputs(file: Path, images: NDArray[np.uint8], batch_size: int) -> Outputs | None:
    """What OpenVINO computes of an int8 graph, as the service has it run: what stays float32 in bfloat16.

    Args:
        file, images, batch_size: as in `cpu_outputs`.

    Returns:
        None where OpenVINO isn't there or can't run the graph: there the service won't use it either.
    """
    try:
        return openvino_outputs(file, images, batch_size, "bf16" if _has_bfloat16() else "f32")
    except ExportError:
        return None


def check_bfloat16() -> None:
    """See whether this machine can compute in bfloat16 through OpenVINO.

    Raises:
        ExportError: the plugin or the processor's instructions are missing; says which.
    """
    if not _has_bfloat16():
        raise ExportError(
            "precision bf16 can't be checked here: this processor has neither avx512_bf16 nor amx_bf16 "
            f"({_CPU_INFO}); export it on one that has, or leave bf16 out of --precision"
        )
    _openvino_devices(onnxruntime_module())


def _has_bfloat16() -> bool:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return bool(flags & _BFLOAT16_FLAGS)


def _openvino_devices(runtime: ModuleType) -> list[Any]:
    try:
        import onnxruntime_ep_openvino
    except ImportError:
        raise ExportError(
            "precision bf16 runs on OpenVINO, whose plugin onnxruntime-ep-openvino isn't installed; "
            "install fovea-serving[openvino] beside fovea-serving[serve], or leave bf16 out of --precision"
        ) from None

    if not hasattr(runtime, "register_execution_provider_library"):
        raise ExportError(
            f"precision bf16 runs on OpenVINO, a plugin; onnxruntime {runtime.__version__} can't load any, "
            "expected 1.23 or newer"
        )

    def cpus() -> list[Any]:
        return [
            device
            for device in runtime.get_ep_devices()
            if device.ep_name == _OPENVINO and device.device.type == runtime.OrtHardwareDeviceType.CPU
        ]

    if not cpus():
        try:
            runtime.register_execution_provider_library(
                _REGISTERED_AS, onnxruntime_ep_openvino.get_library_path()
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ExportError(f"OpenVINO's plugin can't be loaded: {error}") from error
    found = cpus()
    if not found:
        raise ExportError("OpenVINO's plugin finds no processor that it runs on: it takes Intel's only")
    return found[:1]


def _outputs(session: Any, images: NDArray[np.uint8], batch_size: int) -> Outputs:
    names = {output.name for output in session.get_outputs()}
    asked = [name for name in (EMBEDDING, LOGITS) if name in names]
    parts = [
        session.run(asked, {INPUT: images[start : start + batch_size]})
        for start in range(0, len(images), batch_size)
    ]
    embeddings, *logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    return logits[0] if logits else np.empty((len(images), 0), np.float32), embeddings
