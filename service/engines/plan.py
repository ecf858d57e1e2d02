"""What one session shall be: the file, the provider, the sizes."""

from dataclasses import dataclass, field
from pathlib import Path

from service.model_settings import ModelSettings


@dataclass(frozen=True)
class SessionPlan:
    """One session of one model, before it is opened.

    Attributes:
        model_file: the variant's ONNX file.
        provider: "tensorrt", "cuda", "openvino" or "cpu".
        precision: what the numbers shall be.
        input_name: of the graph's only input, uint8.
        image_shape: (height, width, 3).
        batch_sizes: what it will be run with, ascending.
        settings: the model's.
        device: the GPU's number; of no meaning on a CPU.
        cache: folder of compiled models, which exists; None for none.
    """

    model_file: Path
    provider: str
    precision: str
    input_name: str
    image_shape: tuple[int, int, int]
    batch_sizes: tuple[int, ...]
    settings: ModelSettings = field(default_factory=ModelSettings)
    device: int = 0
    cache: Path | None = None
