"""RGB pixels of any size → the model's input size: resize and centre crop, exactly as the manifest says.

The result stays uint8; normalisation is in the model's graph.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        resize_short_side: the shorter side is brought to this many pixels, the aspect ratio kept.
        crop_height, crop_width: what is then cut from the centre; at most `resize_short_side`.
        interpolation: one of `INTERPOLATIONS`, antialiased when it makes the image smaller
            (except nearest), as Pillow does.
    """

    resize_short_side: int
    crop_height: int
    crop_width: int
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Raises ValueError where a value can't be used."""
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation is {self.interpolation!r}; expected one of {', '.join(INTERPOLATIONS)}"
            )
        for name in ("crop_height", "crop_width"):
            size = getattr(self, name)
            if not 1 <= size <= self.resize_short_side:
                raise ValueError(
                    f"{name} is {size}; expected 1 to resize_short_side = {self.resize_short_side}"
                )


def preprocess(image: NDArray[np.uint8] | Image.Image, spec: Preprocessing) -> NDArray[np.uint8]:
    """Resize the short side, then cut out the centre.

    Both happen in one resampling of just the part that is kept, so that a picture of 1 × 100,000
    pixels costs no more memory than its crop.

    Args:
        image: uint8 [height, width, 3] RGB, or a Pillow picture of mode RGB.
        spec: sizes and interpolation.

    Returns:
        uint8 [crop_height, crop_width, 3], C-contiguous.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    width, height = picture.size
    short = min(width, height)
    # Sizes and offsets are rounded as torchvision's Resize and CenterCrop do.
    resized_width = spec.resize_short_side * width // short
    resized_height = spec.resize_short_side * height // short
    left = round((resized_width - spec.crop_width) / 2)
    top = round((resized_height - spec.crop_height) / 2)
    x_scale, y_scale = width / resized_width, height / resized_height
    box = (
        left * x_scale,
        top * y_scale,
        min((left + spec.crop_width) * x_scale, width),
        min((top + spec.crop_height) * y_scale, height),
    )
    cropped = picture.resize((spec.crop_width, spec.crop_height), INTERPOLATIONS[spec.interpolation], box=box)
    return np.ascontiguousarray(np.asarray(cropped))
