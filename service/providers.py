"""Which execution provider runs a model: the one that was asked for, really active, or an error."""

from collections import Counter
from typing import Any

import onnxruntime
import structlog

from service.engines import cuda, openvino, tensorrt
from service.engines.libraries import provider_error
from service.engines.plan import SessionPlan
from service.errors import ManifestError, ProviderUnavailable
from service.model_settings import ModelSettings

log = structlog.get_logger()

# What `auto` tries, the fastest first.
ORDER = ("tensorrt", "cuda", "openvino", "cpu")
NAMES = {
    "tensorrt": tensorrt.NAME,
    "cuda": cuda.NAME,
    "openvino": openvino.NAME,
    "cpu": "CPUExecutionProvider",
}
GPU_PROVIDERS = ("tensorrt", "cuda")
# Where the time of a network goes: with one of these on the CPU a provider is there in name only.
_HEAVY = {
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm",
    "MatMul", "MatMulInteger", "MultiHeadAttention", "NhwcFusedConv", "QGemm", "QLinearConv", "QLinearMatMul",
}  # fmt: skip


def missing(provider: str) -> str:
    """What a provider lacks on this machine, by library and version; empty if nothing is."""
    if provider == "cuda":
        return cuda.missing()
    if provider == "tensorrt":
        return "; ".join(filter(None, (cuda.missing(), tensorrt.missing())))
    return openvino.missing() if provider == "openvino" else ""


def candidates(execution_provider: str) -> tuple[str, ...]:
    """The providers to try for a setting, in order.

    Raises:
        ProviderUnavailable: the one that was named lacks something; says what.
    """
    if execution_provider == "auto":
        return tuple(provider for provider in ORDER if not missing(provider))
    lacking = missing(execution_provider)
    if lacking:
        raise ProviderUnavailable(
            f"execution_provider is {execution_provider!r}, but {lacking}; 'auto' takes what is there"
        )
    return (execution_provider,)


def create_session(plan: SessionPlan) -> onnxruntime.InferenceSession:
    """Open a model on the plan's provider.

    ONNX Runtime falls back to the CPU with only a log line; here that is an error.

    Raises:
        ProviderUnavailable: the provider isn't active, or leaves the work to the CPU.
        ManifestError: ONNX Runtime can't load the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.settings.intra_op_thread_count
    options.inter_op_num_threads = 1
    # Idle workers that spin would take the cores from decoding and from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    if plan.provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    arguments: dict[str, Any] = {}
    if plan.provider == "openvino":
        openvino.register(plan, options)
    else:
        arguments["providers"] = _providers(plan)
    try:
        session = onnxruntime.InferenceSession(str(plan.model_file), options, **arguments)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ManifestError(
            f"{plan.model_file}: ONNX Runtime {onnxruntime.__version__} can't load it with "
            f"{NAMES[plan.provider]}: {error}"
        ) from error
    _check_active(plan, session)
    return session


def _providers(plan: SessionPlan) -> list[tuple[str, dict[str, str]]]:
    """With options, the first choice first; TensorRT leaves what it can't do to CUDA."""
    if plan.provider == "cpu":
        return [(NAMES["cpu"], {})]
    of_cuda = cuda.options(plan)
    if plan.provider == "cuda":
        return [(NAMES["cuda"], of_cuda), (NAMES["cpu"], {})]
    of_cuda["enable_cuda_graph"] = "0"  # TensorRT records its own
    return [(NAMES["tensorrt"], tensorrt.options(plan)), (NAMES["cuda"], of_cuda), (NAMES["cpu"], {})]


def _check_active(plan: SessionPlan, session: onnxruntime.InferenceSession) -> None:
    name = NAMES[plan.provider]
    active = session.get_providers()
    if active[0] != name:
        raise ProviderUnavailable(
            f"execution_provider is {plan.provider!r}, but onnxruntime {onnxruntime.__version__} didn't "
            f"activate {name}: {_why_inactive(plan.provider)}; active are "
            f"{', '.join(active)}"
        )
    nodes = _nodes(session)
    if nodes is None or plan.provider == "cpu":
        return
    on_cpu = nodes.get(NAMES["cpu"], Counter())
    heavy = sorted(on_cpu.keys() & _HEAVY)
    if heavy or not nodes.get(name):
        left = ", ".join(heavy) or "every node"
        raise ProviderUnavailable(
            f"execution_provider is {plan.provider!r}, but {name} left {left} of {plan.model_file} to the CPU"
        )
    if on_cpu:
        log.info("nodes_on_cpu", file=str(plan.model_file), provider=plan.provider, nodes=dict(on_cpu))


def _why_inactive(provider: str) -> str:
    reason = missing(provider)
    if not reason and provider in GPU_PROVIDERS:
        reason = provider_error(provider)
    return reason or "its log on stderr says why"


def _nodes(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]] | None:
    """Where ONNX Runtime put the graph's nodes: provider → operator → how many; None where it can't say."""
    try:
        parts = session.get_provider_graph_assignment_info()
    except Exception:  # noqa: BLE001 - not recorded for this session, or not in this version
        return None
    nodes: dict[str, Counter[str]] = {}
    for part in parts:
        nodes.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return nodes


def on_gpu(settings: ModelSettings) -> bool:
    """Whether a model with such settings runs on a GPU."""
    if settings.execution_provider == "auto":
        # bf16 is OpenVINO's: `auto` then passes the GPU over.
        return settings.precision != "bf16" and not missing("cuda")
    return settings.execution_provider in GPU_PROVIDERS
