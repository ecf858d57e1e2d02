"""AlexNet's PCA lighting: what changes with the colour and the strength of the light."""

import torch
from torch import Tensor, nn

# Of ImageNet's RGB pixels from 0 to 1: the square roots of the covariance's eigenvalues, and its
# eigenvectors as columns, as the Torch7 reference (fb.resnet.torch, datasets/imagenet.lua) gives them.
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
_AXES = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


class Lighting(nn.Module):
    """Adds to all pixels of a picture the same random colour, along the axes on which photographs differ.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1.

    Args:
        deviation: of the draw, as a share of the photographs' own along each axis; the paper's is 0.1.
    """

    axes: Tensor

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        self.register_buffer("axes", torch.tensor(_AXES) * torch.tensor(_DEVIATIONS))

    def forward(self, images: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width] from 0 to 1 → the same."""
        draws = torch.randn(len(images), 3) * self.deviation
        colours = draws.to(images.device) @ self.axes.to(images.device).T
        return (images + colours[:, :, None, None]).clamp(0, 1)
