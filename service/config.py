"""Every setting of the server, with its unit, its limits and its help, checked once."""

import math
import os
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from service.errors import ConfigError

EXECUTION_PROVIDERS = ("auto", "cuda", "cpu")
LOG_FORMATS = ("auto", "json", "console")


def _setting(
    default: Any,
    group: str,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    metadata = {"group": group, "help": text, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


_NETWORK, _MODELS, _BATCHING = "Network", "Models", "Batching and threads"
_LIMITS, _RETRIEVAL, _OPERATION = "Limits", "Retrieval", "Operation"


@dataclass(frozen=True)
class Config:
    """The settings of `fovea serve`; `fovea serve --help` prints the help of each.

    Raises:
        ConfigError: names the setting, its value and what was expected.
    """

    host: str = _setting(
        "127.0.0.1",
        _NETWORK,
        "Address to listen on. There is no authentication: 0.0.0.0 lets every machine in.",
    )
    port: int = _setting(50051, _NETWORK, "gRPC port; 0 takes a free one and logs it.", low=0, high=65535)
    metrics_port: int = _setting(
        8002, _NETWORK, "HTTP port of /metrics; 0 takes a free one and logs it.", low=0, high=65535
    )
    max_concurrent_streams: int = _setting(
        256, _NETWORK, "Calls at a time on one connection; more wait in the client.", low=1, high=100_000
    )
    max_connection_age_s: float = _setting(
        0.0,
        _NETWORK,
        "Close a connection after this long, so that clients spread over new replicas; 0: never.",
        low=0,
        high=86_400,
    )

    model_repository: Path = _setting(
        Path("models"), _MODELS, "Folder of model packages: <model>/<version>/manifest.json."
    )
    models: tuple[str, ...] = _setting(
        (),
        _MODELS,
        "Models to serve, as NAME (its highest version) or NAME:VERSION; may be given several times. "
        "Default: the highest version of every model.",
    )
    default_model: str = _setting(
        "", _MODELS, "Answers requests that name no model. Default: the only model, if there is one."
    )
    execution_provider: str = _setting(
        "auto",
        _MODELS,
        "What runs the models. auto: CUDA if it is really there, else the CPU.",
        choices=EXECUTION_PROVIDERS,
    )

    max_batch_size: int = _setting(8, _BATCHING, "Images that run together at most.", low=1, high=1024)
    max_queue_delay_ms: float = _setting(
        2.0, _BATCHING, "How long the first image of a batch waits for others.", low=0, high=10_000
    )
    queue_capacity: int = _setting(
        1024,
        _BATCHING,
        "Images per model that may be in: decoding, waiting or running. Beyond it requests are refused "
        "(RESOURCE_EXHAUSTED); streams use half of it and wait instead.",
        low=2,
        high=1_000_000,
    )
    intra_op_threads: int = _setting(
        0, _BATCHING, "Threads of one model run; 0: the cores this process may use.", low=0, high=1024
    )
    decode_threads: int = _setting(
        0, _BATCHING, "Threads that decode images; 0: the cores this process may use.", low=0, high=1024
    )

    max_message_bytes: int = _setting(
        16 * 1024 * 1024,
        _LIMITS,
        "Largest gRPC message, in and out; a larger one is refused whole.",
        low=64 * 1024,
        high=1024**3,
    )
    max_image_bytes: int = _setting(
        15 * 1024 * 1024, _LIMITS, "Largest image file; a larger one is that image's own error.", low=1024
    )
    max_queued_bytes: int = _setting(
        512 * 1024 * 1024,
        _LIMITS,
        "Bytes of images per model that may be in, as queue_capacity counts them.",
        low=128 * 1024,
    )
    max_image_pixels: int = _setting(
        50_000_000, _LIMITS, "Largest width × height, read before decoding.", low=1, high=1_000_000_000
    )
    max_decoding_pixels: int = _setting(
        100_000_000,
        _LIMITS,
        "Pixels that are decoded at the same time: what bounds the memory of decoding (4 to 16 bytes "
        "each). A larger image is decoded alone.",
        low=1,
    )
    max_images_per_request: int = _setting(
        256, _LIMITS, "Images, items or queries in one message.", low=1, high=100_000
    )
    default_timeout_ms: float = _setting(
        30_000.0,
        _LIMITS,
        "Deadline of calls that set none, and of each message on a stream.",
        low=1,
        high=3_600_000,
    )
    stream_window_images: int = _setting(
        64,
        _LIMITS,
        "Images of one stream in work at a time, or one message's bytes; then its caller waits.",
        low=1,
        high=100_000,
    )

    index_path: Path = _setting(
        Path("index"), _RETRIEVAL, "Folder of the retrieval index, made if missing; one server at a time."
    )
    search_threads: int = _setting(
        0, _RETRIEVAL, "Threads that search; 0: the cores this process may use.", low=0, high=1024
    )
    max_top_k: int = _setting(1000, _RETRIEVAL, "Most neighbours of one query.", low=1, high=10_000)

    lame_duck_s: float = _setting(
        2.5,
        _OPERATION,
        "After SIGTERM, how long calls are still taken while health already says NOT_SERVING, "
        "so that balancers look elsewhere first. SIGINT (Ctrl-C) skips it.",
        low=0,
        high=600,
    )
    drain_timeout_s: float = _setting(
        30.0, _OPERATION, "How long calls that are under way may then take to finish.", low=0, high=3600
    )
    log_format: str = _setting(
        "auto",
        _OPERATION,
        "Log lines on stderr: json, console, or auto: console on a terminal, else json.",
        choices=LOG_FORMATS,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.host.strip("[]"))  # frozen, but not yet made
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if self.queue_capacity < 2 * self.max_batch_size:
            raise ConfigError(
                f"queue_capacity is {self.queue_capacity}; "
                f"expected at least 2 × max_batch_size = {2 * self.max_batch_size}"
            )
        if self.max_images_per_request > self.queue_capacity // 2:
            raise ConfigError(
                f"max_images_per_request is {self.max_images_per_request}; "
                f"expected at most half of queue_capacity = {self.queue_capacity // 2}"
            )
        if self.max_queued_bytes < 2 * self.max_message_bytes:
            raise ConfigError(
                f"max_queued_bytes is {self.max_queued_bytes}; "
                f"expected at least 2 × max_message_bytes = {2 * self.max_message_bytes}"
            )

    @property
    def address_host(self) -> str:
        """The host as it stands before ':port': IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def intra_op_thread_count(self) -> int:
        """Threads of one model run, the 0 resolved."""
        return self.intra_op_threads or available_cores()

    @property
    def decode_thread_count(self) -> int:
        """Threads that decode, the 0 resolved."""
        return self.decode_threads or available_cores()

    @property
    def search_thread_count(self) -> int:
        """Threads that search, the 0 resolved."""
        return self.search_threads or available_cores()


def _check(setting: "Field[Any]", value: Any) -> None:
    low, high, choices = (setting.metadata[key] for key in ("low", "high", "choices"))
    if choices is not None and value not in choices:
        raise ConfigError(f"{setting.name} is {value!r}; expected one of {', '.join(choices)}")
    if low is not None and not low <= value <= (high or math.inf):
        raise ConfigError(f"{setting.name} is {value}; expected {low} to {high or 'any more'}")


def default_of(setting: "Field[Any]") -> Any:
    """A setting's default value."""
    assert setting.default is not MISSING  # noqa: S101 - every setting above has one
    return setting.default


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, and its cgroup's quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
