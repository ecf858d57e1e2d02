"""Pictures mixed with other pictures of the batch, and their labels with them."""

import math

import torch
from torch import Tensor, nn

from training.objective import one_hot


class Mix(nn.Module):
    """Mixup (Zhang et al. 2017, arXiv:1710.09412) or CutMix (Yun et al. 2019, arXiv:1905.04899).

    Each batch draws one share from Beta(α, α), and, where both are asked for, which of the two it gets.

    Args:
        mixup: α of blending whole pictures; 0 for never.
        cutmix: α of pasting a rectangle; 0 for never.
        classes: of the data set.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        super().__init__()
        self.mixup, self.cutmix, self.classes = mixup, cutmix, classes

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 [batch, 3, height, width], int64 [batch] or float32 [batch, classes] → both mixed."""
        targets = one_hot(targets, self.classes)
        pasting = bool(self.cutmix) and (not self.mixup or float(torch.rand(())) < 0.5)
        alpha = torch.tensor(self.cutmix if pasting else self.mixup, dtype=torch.float64)
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        # Each picture's partner is its neighbour: batches are shuffled anyway.
        others, other_targets = images.roll(1, 0), targets.roll(1, 0)
        if pasting:
            images, share = _pasted(images, others, share)
        else:
            images = share * images + (1 - share) * others
        return images, share * targets + (1 - share) * other_targets


def _pasted(images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """One rectangle of 1 - `share` of the area, the same in all; the share that was kept, the border's cut
    taken into account."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    middle_y, middle_x = (int(torch.randint(size, ())) for size in (height, width))
    half_y, half_x = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(0, middle_y - half_y), min(height, middle_y + half_y)
    left, right = max(0, middle_x - half_x), min(width, middle_x + half_x)
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)
