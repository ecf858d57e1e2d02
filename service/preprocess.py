"""RGB pixels of any size → the model's input size: resize and centre crop, exactly as the manifest says.

The result stays uint8; normalisation is in the model's graph.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.manifest import Manifest

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


# How many times `resize_short_side` a scaled JPEG's short side keeps at least. With 2, the pixels differ half
# as much, but 12 megapixels of 3,000 rows are decoded at a quarter instead of an eighth, a fifth slower;
# with 1, accuracy begins to suffer. Measured by benchmarks/decode.py.
_SCALED_DECODE_MARGIN = 1.25


@dataclass(frozen=True)
class Picture:
    """A decoded picture, at its file's size or, of a JPEG, at a half, a quarter or an eighth of it.

    Attributes:
        image: of mode RGB, upright.
        width, height: of the file's picture, upright, in pixels.
        box: where that picture lies in `image`: left, top, right and bottom in `image`'s pixels. Its
            edges fall between pixels where the file's size can't be divided.
    """

    image: Image.Image
    width: int
    height: int
    box: tuple[float, float, float, float]

    @classmethod
    def whole(cls, image: Image.Image) -> "Picture":
        """A picture of mode RGB at its own size."""
        return cls(image, image.width, image.height, (0, 0, image.width, image.height))


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        resize_short_side: the shorter side is brought to this many pixels, the aspect ratio kept.
        crop_height, crop_width: what is then cut from the centre; at most `resize_short_side`.
        interpolation: one of `INTERPOLATIONS`, antialiased when it makes the image smaller
            (except nearest), as Pillow does.
        jpeg_scaled_decode: whether large JPEGs are decoded at a half, a quarter or an eighth of their
            size (the decoder skips the fine detail that the resize would average out): cheaper, and
            slightly other pixels.
    """

    resize_short_side: int
    crop_height: int
    crop_width: int
    interpolation: str = "bilinear"
    jpeg_scaled_decode: bool = False

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
        if not isinstance(self.jpeg_scaled_decode, bool):  # it may come from a file
            raise ValueError(f"jpeg_scaled_decode is {self.jpeg_scaled_decode!r}; expected true or false")

    @classmethod
    def of(cls, manifest: Manifest) -> "Preprocessing":
        """What a model package says of it."""
        return cls(
            manifest.resize_short_side,
            manifest.input_height,
            manifest.input_width,
            manifest.interpolation,
            manifest.jpeg_scaled_decode,
        )

    @property
    def least_short_side(self) -> int | None:
        """The fewest pixels that a JPEG's shorter side may be decoded at; None where only all will do."""
        if not self.jpeg_scaled_decode:
            return None
        return math.ceil(_SCALED_DECODE_MARGIN * self.resize_short_side)


def preprocess(image: NDArray[np.uint8] | Image.Image | Picture, spec: Preprocessing) -> NDArray[np.uint8]:
    """Resize the short side, then cut out the centre.

    Both happen in one resampling of just the part that is kept, so that a picture of 1 × 100,000
    pixels costs no more memory than its crop. Of a scaled picture the same part is kept as of the
    whole one, to a fraction of a pixel.

    Args:
        image: uint8 [height, width, 3] RGB, or a picture of mode RGB.
        spec: sizes and interpolation.

    Returns:
        uint8 [crop_height, crop_width, 3], C-contiguous.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    picture = image if isinstance(image, Picture) else Picture.whole(image)
    width, height = resized_size(picture, spec)
    # Rounded as torchvision's CenterCrop does.
    left, top = round((width - spec.crop_width) / 2), round((height - spec.crop_height) / 2)
    return cut(picture, spec, left, top)


def resized_size(picture: Picture, spec: Preprocessing) -> tuple[int, int]:
    """Width and height of the whole picture with its short side resized, rounded as torchvision's Resize."""
    short = min(picture.width, picture.height)
    return (
        spec.resize_short_side * picture.width // short,
        spec.resize_short_side * picture.height // short,
    )


def cut(picture: Picture, spec: Preprocessing, left: int, top: int) -> NDArray[np.uint8]:
    """The crop of the resized picture whose first pixel is at `left` and `top`; only that part is resampled.

    Args:
        picture: of mode RGB.
        spec: sizes and interpolation.
        left, top: in pixels of the resized picture, within which the crop lies.

    Returns:
        uint8 [crop_height, crop_width, 3], C-contiguous.
    """
    width, height = resized_size(picture, spec)
    first_x, first_y, last_x, last_y = picture.box
    x_scale, y_scale = (last_x - first_x) / width, (last_y - first_y) / height
    box = (
        first_x + left * x_scale,
        first_y + top * y_scale,
        min(first_x + (left + spec.crop_width) * x_scale, last_x),
        min(first_y + (top + spec.crop_height) * y_scale, last_y),
    )
    size = (spec.crop_width, spec.crop_height)
    cropped = picture.image.resize(size, INTERPOLATIONS[spec.interpolation], box=box)
    return np.ascontiguousarray(np.asarray(cropped))
