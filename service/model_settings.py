"""The settings that each model may have of its own: its engine, its batches, its deadline."""

from dataclasses import dataclass, fields

from service.processor import available_cores
from service.setting import BATCHING, ENGINE, LIMITS, check, setting

EXECUTION_PROVIDERS = ("auto", "tensorrt", "cuda", "openvino", "cpu")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class ModelSettings:
    """How one model runs; `fovea serve --help` prints the help of each.

    Raises:
        ConfigError: names the setting, its value and what was expected.
    """

    execution_provider: str = setting(
        "auto",
        ENGINE,
        "What runs the model. auto: the first of TensorRT, CUDA, OpenVINO and CPU that is really there "
        "and can run it. One that is named and isn't active stops the start.",
        choices=EXECUTION_PROVIDERS,
    )
    precision: str = setting(
        "auto",
        ENGINE,
        "Of the numbers. auto: the fastest variant in the package whose measured agreement with fp32 is "
        "good enough and which the provider runs here.",
        choices=PRECISIONS,
    )
    compile_cache: str = setting(
        "auto",
        ENGINE,
        "Folder of compiled models (OpenVINO, TensorRT), so that a restart is fast; made if missing. "
        "auto: fovea in the user's cache folder; empty: none.",
    )
    devices: tuple[int, ...] = setting(
        (0,), ENGINE, "GPUs by number, separated by commas; each gets its own instances.", low=0, high=255
    )
    gpu_mem_limit_bytes: int = setting(
        0, ENGINE, "Most GPU memory of one instance's CUDA arena; 0: no limit.", low=0
    )
    cuda_graphs: bool = setting(
        False, ENGINE, "Record each batch size once as a CUDA graph and replay it: less launch overhead."
    )
    prefer_nhwc: bool = setting(
        False, ENGINE, "Let CUDA convolve in channels-last order; measure which is faster for your model."
    )

    max_batch_size: int = setting(8, BATCHING, "Images that run together at most.", low=1, high=1024)
    max_queue_delay_ms: float = setting(
        2.0, BATCHING, "How long the first image of a batch waits for others.", low=0, high=10_000
    )
    instances: int = setting(
        1, BATCHING, "Runs of the model at the same time (on each GPU, where there are).", low=1, high=64
    )
    intra_op_threads: int = setting(
        0,
        BATCHING,
        "Threads of one model run; 0: the cores this process may use, less those for decoding, divided "
        "among all models' instances.",
        low=0,
        high=1024,
    )

    default_timeout_ms: float = setting(
        30_000.0,
        LIMITS,
        "Deadline of calls that set none, and of each message on a stream.",
        low=1,
        high=3_600_000,
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            check(one, getattr(self, one.name))

    @property
    def intra_op_thread_count(self) -> int:
        """Threads of one model run, the 0 resolved as if the model were alone."""
        return self.intra_op_threads or available_cores()
