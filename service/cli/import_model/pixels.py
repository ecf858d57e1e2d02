"""Pixels → a foreign model's input, in numpy; and pictures to compare on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cli.image_files import image_files
from service.cli.import_model.errors import ImportRefused
from service.errors import InvalidImage
from service.image import decode_picture
from service.preprocess import Preprocessing, preprocess

LAYOUTS = ("NCHW", "NHWC")
COLOR_ORDERS = ("RGB", "BGR")
Channels = tuple[float, float, float]
# Of a folder; more only take longer.
_MAX_PICTURES = 32
_GENERATED = 8


@dataclass(frozen=True)
class PixelInput:
    """What a foreign model expects of a picture.

    Attributes:
        layout: one of `LAYOUTS`.
        color_order: one of `COLOR_ORDERS`, of the channels as the model takes them.
        scale: pixels (0 to 255) are multiplied by it first,
        mean: then this is subtracted, one per channel in the model's own order,
        std: then it is divided by this, likewise.
    """

    layout: str
    color_order: str
    scale: float
    mean: Channels
    std: Channels

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 [batch, height, width, 3] RGB → the model's input."""
        values = pixels[..., ::-1] if self.color_order == "BGR" else pixels
        exact = (values * np.float64(self.scale) - np.array(self.mean)) / np.array(self.std)
        ordered = exact.transpose(0, 3, 1, 2) if self.layout == "NCHW" else exact
        return np.ascontiguousarray(ordered, np.float32)

    @property
    def recorded(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation as manifests have them: RGB, of pixels from 0 to 1."""
        mean, std = ([value / (255 * self.scale) for value in part] for part in (self.mean, self.std))
        return (mean[::-1], std[::-1]) if self.color_order == "BGR" else (mean, std)


def folder_pictures(folder: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    """Up to 32 images of a folder, evenly spread, as the service would hand them to the graph.

    Returns:
        uint8 [count, crop_height, crop_width, 3].

    Raises:
        ImportRefused: there are none, or one can't be used.
    """
    paths = sorted(image_files(folder))
    if not paths:
        raise ImportRefused(f"no image files under {folder}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, _MAX_PICTURES).round().astype(int)).tolist()
    return np.stack([_read(paths[index], spec) for index in chosen])


def _read(path: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    try:
        return preprocess(decode_picture(path.read_bytes(), least_short_side=spec.least_short_side), spec)
    except OSError as error:
        raise ImportRefused(f"{path}: can't be read: {error.strerror}") from error
    except InvalidImage as error:
        raise ImportRefused(f"{path}: {error}") from error


def generated_pictures(height: int, width: int) -> NDArray[np.uint8]:
    """Always the same: soft blobs of colour under noise, no two channels, rows or columns alike.

    Returns:
        uint8 [8, height, width, 3].
    """
    draw = np.random.default_rng(0)
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    pictures = np.empty((_GENERATED, height, width, 3), np.uint8)
    for picture in pictures:
        brightness = np.zeros((height, width, 3))
        for _ in range(6):
            top, left, size = draw.random(), draw.random(), draw.uniform(0.05, 0.5)
            distance = ((rows - top) ** 2 + (columns - left) ** 2) / size**2
            brightness += draw.uniform(-160, 160, 3) * np.exp(-distance)
        noise = draw.normal(0, 12, (height, width, 3))
        picture[:] = np.clip(draw.uniform(60, 190, 3) + brightness + noise, 0, 255)
    return pictures
