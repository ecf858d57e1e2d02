"""OpenVINO, as a plugin that ONNX Runtime loads: the fastest on Intel's processors."""

import functools
import json
from importlib.metadata import version
from typing import Any

import onnxruntime

from service.engines.plan import SessionPlan
from service.processor import BF16_INSTRUCTIONS, instruction_sets

NAME = "OpenVINOExecutionProvider"
_INTEL = 0x8086


@functools.cache
def missing() -> str:
    """What OpenVINO lacks here; empty if nothing. Registers the plugin, once per process."""
    runtime = onnxruntime.__version__
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        return f"onnxruntime {runtime} can't load plugins; expected 1.23 or newer"
    try:
        import onnxruntime_ep_openvino as plugin
    except ModuleNotFoundError:
        return "onnxruntime-ep-openvino isn't installed: pip install 'fovea-serving[openvino]'"
    try:
        onnxruntime.register_execution_provider_library(NAME, plugin.get_library_path())
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
        return f"onnxruntime {runtime} can't load the plugin onnxruntime-ep-openvino: {error}"
    if not devices():
        return f"the plugin onnxruntime-ep-openvino {version('onnxruntime-ep-openvino')} {_lacking()}"
    return ""


def devices() -> list[Any]:
    """ONNX Runtime's handles of the processor, as OpenVINO offers it."""
    return [device for device in _processors() if device.ep_name == NAME]


def _lacking() -> str:
    makers = {device.device.vendor_id: device.device.vendor for device in _processors()}
    if _INTEL in makers:
        return "finds no processor that it can use"
    named = "/".join(sorted(makers.values()))
    return f"finds no processor of Intel's, and takes no other: this one's maker is {named!r}"


def _processors() -> list[Any]:
    cpu = onnxruntime.OrtHardwareDeviceType.CPU
    return [device for device in onnxruntime.get_ep_devices() if device.device.type == cpu]


def options(plan: SessionPlan) -> dict[str, str]:
    """The provider's options.

    The precision is always said: left alone, OpenVINO runs an fp32 model in bf16 where the processor can.
    An int8 model's few layers that stay float32 may: a third more images/s of ResNet-50, and the same
    agreement, since quantization errs far more. A model imported in fp16 has more bits than bf16.
    """
    wide = plan.precision in ("fp32", "fp16") or not instruction_sets() & BF16_INSTRUCTIONS
    cpu = {
        "INFERENCE_PRECISION_HINT": "f32" if wide else "bf16",
        "INFERENCE_NUM_THREADS": str(plan.settings.intra_op_thread_count),
        "NUM_STREAMS": "1",
        # Pinned, the instances of a process would all sit on the first cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    if plan.cache:
        cpu["CACHE_DIR"] = str(plan.cache)
    return {"load_config": json.dumps({"CPU": cpu})}


def register(plan: SessionPlan, session_options: onnxruntime.SessionOptions) -> None:
    """Have a session use OpenVINO."""
    session_options.add_provider_for_devices(devices()[:1], options(plan))
