"""Pictures that show an int8 quantizer which values a network's layers take."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ExportError
from training.graph import INPUT

# The ranges settle well before; each picture costs one float32 run.
MAX_CALIBRATION_IMAGES = 256
_BATCH_SIZE = 8


class CalibrationBatches:
    """ONNX Runtime's CalibrationDataReader over images: equal batches, each given once.

    A ragged last batch would crash the methods that stack what they collect, so it is left out.

    Args:
        images: uint8 [count, height, width, 3]; at most `MAX_CALIBRATION_IMAGES` are used, evenly spread.

    Raises:
        ExportError: there are none.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        if len(images) == 0:
            raise ExportError("there are no images to calibrate int8 on; expected real ones, at least 1")
        chosen = np.unique(np.linspace(0, len(images) - 1, MAX_CALIBRATION_IMAGES).round().astype(int))
        size = min(_BATCH_SIZE, len(chosen))
        whole = chosen[: len(chosen) // size * size].reshape(-1, size)
        self._waiting = [images[batch] for batch in whole]

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the graph's input; None after the last."""
        return {INPUT: self._waiting.pop(0)} if self._waiting else None


def held_apart(calibration: NDArray[np.uint8], evaluation: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The calibration images that aren't measured on: numbers on known images would flatter.

    Args:
        calibration: uint8 [count, height, width, 3].
        evaluation: likewise.

    Raises:
        ExportError: none is left.
    """
    measured_on = {_digest(image) for image in evaluation}
    kept = np.array([_digest(image) not in measured_on for image in calibration], bool)
    if not kept.any():
        raise ExportError(
            f"all {len(calibration)} images to calibrate int8 on are among those that it is measured on; "
            "expected others, so that the numbers mean something: --calibration names a folder of them"
        )
    apart: NDArray[np.uint8] = calibration[kept]
    return apart


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
