"""Pictures moved, turned, sheared and zoomed in one resampling, or warped place by place."""

from collections.abc import Callable

import torch
from torch import Tensor

Operation = Callable[[Tensor], Tensor]

# Of the smoothing of elastic displacements, as a share of the side: bumps about a tenth of the picture wide.
_SMOOTHING = 0.06


def affine(shift: float, rotation: float, shear: float, zoom: float) -> Operation:
    """A random affine map of each picture; what comes from outside shows the border's mirror image.

    Args:
        shift: at most this share of the side, each way.
        rotation: at most this many degrees, either way.
        shear: at most this many degrees, either way, across and down.
        zoom: by a factor from 1 - zoom to 1 + zoom.

    Returns:
        Float32 [batch, 3, height, width] → the same.
    """
    from kornia.augmentation import RandomAffine

    warp: Operation = RandomAffine(
        degrees=rotation,
        translate=(shift, shift) if shift else None,
        scale=(1 - zoom, 1 + zoom) if zoom else None,
        shear=(-shear, shear, -shear, shear) if shear else None,
        padding_mode="reflection",
        p=1.0,
    )
    return warp


def elastic(strength: float) -> Operation:
    """Smooth random displacements (Simard et al. 2003, "Best Practices for Convolutional Neural Networks").

    Args:
        strength: how far points move, as a share of the side, root mean square.

    Returns:
        Float32 [batch, 3, height, width] → the same.
    """
    from kornia.geometry.transform import elastic_transform2d

    def warp(images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        deviation = max(1.0, _SMOOTHING * min(height, width))
        kernel = 2 * round(2 * deviation) + 1
        noise = torch.rand(batch, 2, height, width) * 2 - 1
        # A Gaussian leaves uniform noise a root mean square of √⅓ ÷ (2 √π σ); coordinates span 2 a side.
        left = 3**-0.5 / (2 * torch.pi**0.5 * deviation)
        alpha = 2 * strength / left
        return elastic_transform2d(
            images,
            noise.to(images.device),
            kernel_size=(kernel, kernel),
            sigma=(deviation, deviation),
            alpha=(alpha, alpha),
            padding_mode="reflection",
        )

    return warp
