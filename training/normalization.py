"""The network's first layer: the service's uint8 pixels → what the weights were trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """(pixel / 255 - mean) / std per channel, as one multiplication and one addition.

    Args:
        mean, std: per RGB channel, of pixels scaled to 0..1.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, deviations = (
            torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std)
        )
        self.register_buffer("scale", (1 / (255 * deviations)).float())
        self.register_buffer("offset", (-means / deviations).float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 [batch, height, width, 3] → float32 [batch, 3, height, width]."""
        # Transposed before the cast: a quarter of the bytes to move.
        return pixels.permute(0, 3, 1, 2).float() * self.scale + self.offset

    def of_shares(self, images: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width] from 0 to 1 → the same, normalised."""
        return images * (255 * self.scale) + self.offset

    def to_shares(self, inputs: Tensor) -> Tensor:
        """What `of_shares` was given: float32 [batch, 3, height, width] from 0 to 1."""
        return (inputs - self.offset) / (255 * self.scale)
