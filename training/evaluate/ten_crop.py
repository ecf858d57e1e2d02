"""Ten views of a picture and one answer of them (Krizhevsky et al. 2012, section 4.1)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.preprocess import Picture, Preprocessing, cut, preprocess, resized_size
from training.probabilities import log_softmax

CROPS = 10
# The share of the resized short side that a crop has, where the model's own preprocessing leaves none out:
# 224 of 256, as in the paper.
_SHARE = 0.875
# Of crops' logits in float64 at once.
_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class TenCrop:
    """How ten crops of a picture are made for a model.

    The four corners and the centre of the whole resized picture, and each of the five mirrored. (The paper
    cuts a square out of the centre first; of square pictures that is the same.) The centre is, to the pixel,
    what the model sees without this.

    Attributes:
        model_spec: the model's own preprocessing.
    """

    model_spec: Preprocessing

    @property
    def spec(self) -> Preprocessing:
        """What the crops are made by.

        The model's own preprocessing, but where that resizes the short side to the very size of a square
        input, which leaves no margin to cut from: the short side is then brought to that ÷ 0.875.
        """
        own = self.model_spec
        if not own.crop_height == own.crop_width == own.resize_short_side:
            return own
        return replace(own, resize_short_side=max(own.crop_width + 1, round(own.crop_width / _SHARE)))

    def crops(self, picture: Picture) -> NDArray[np.uint8]:
        """Uint8 [10, crop_height, crop_width, 3]."""
        spec = self.spec
        width, height = resized_size(picture, spec)
        right, bottom = width - spec.crop_width, height - spec.crop_height
        corners = [cut(picture, spec, left, top) for top in (0, bottom) for left in (0, right)]
        five = np.stack([*corners, preprocess(picture, spec)])
        return np.concatenate([five, five[:, :, ::-1]])

    def sent(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A crop as a picture of which the model's own preprocessing leaves just that crop.

        Its short side is what it would be resized to, so nothing is resampled, and the crop lies where the
        centre is cut out. What is around it is never seen.

        Args:
            crop: uint8 [crop_height, crop_width, 3].

        Returns:
            uint8 [resize_short_side, resize_short_side, 3].
        """
        side = self.model_spec.resize_short_side
        height, width, _ = crop.shape
        top, left = round((side - height) / 2), round((side - width) / 2)
        picture = np.zeros((side, side, 3), np.uint8)
        picture[top : top + height, left : left + width] = crop
        return picture

    def __str__(self) -> str:
        own, spec = self.model_spec, self.spec
        unlike = f" (the model itself resizes to {own.resize_short_side}, which leaves no margin)"
        return (
            f"ten crops of each image: four corners and the centre, {spec.crop_width} × {spec.crop_height} "
            f"of the image with its short side at {spec.resize_short_side}, each mirrored too; "
            f"probabilities and embeddings are means over them{unlike if spec != own else ''}"
        )

    def document(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        return {
            "crops": CROPS,
            "views": "four corners and centre, each mirrored",
            "crop_height": self.spec.crop_height,
            "crop_width": self.spec.crop_width,
            "resize_short_side": self.spec.resize_short_side,
            "model_resize_short_side": self.model_spec.resize_short_side,
            "mean_of": "probabilities; embeddings, brought to unit length",
        }


def mean_logits(
    logits: NDArray[np.float32], task: str, temperature: float, into: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Logits whose probabilities, at the same temperature, are the means of the crops' probabilities.

    Args:
        logits: float32 [10 × pictures, classes], the crops of a picture one after another.
        task: 'single_label' for means of softmax, 'multi_label' for means of sigmoids.
        temperature: logits are divided by it.
        into: float32 [pictures, classes], which is filled and returned.
    """
    classes = logits.shape[1]
    shape = (-1, CROPS, classes)
    pictures = max(1, _BLOCK_VALUES // (CROPS * classes))
    for start in range(0, len(into), pictures):
        crops = logits[start * CROPS : (start + pictures) * CROPS]
        if task == "multi_label":
            scaled = crops.astype(np.float64) / temperature
            # ln p = -ln(1 + exp(-x)), ln(1 - p) = -ln(1 + exp(x)); both sums have the same tenth.
            yes, no = (-np.logaddexp(0, sign * scaled).reshape(shape) for sign in (-1, 1))
            mean = np.logaddexp.reduce(yes, axis=1) - np.logaddexp.reduce(no, axis=1)
        else:
            said = log_softmax(crops, temperature).reshape(shape)
            mean = np.logaddexp.reduce(said, axis=1) - np.log(CROPS)
        into[start : start + pictures] = temperature * mean
    return into


def mean_directions(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32 [10 × pictures, dimension] → the mean of each picture's ten, brought to unit length."""
    means = embeddings.reshape(-1, CROPS, embeddings.shape[1]).mean(axis=1)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    # Where ten cancel out there is no direction.
    unit: NDArray[np.float32] = means / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
