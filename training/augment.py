"""What training does to whole batches on the device, between the loader's uint8 pixels and the network.

Every draw comes from PyTorch's global generator: who seeds it before a batch gets the same batch again.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.augment_lighting import Lighting
from training.augment_mix import Mix
from training.augment_policies import rand_augment, trivial_augment
from training.augment_warp import affine, elastic
from training.config import AugmentationConfig
from training.normalization import Normalization

Operation = Callable[[Tensor], Tensor]
"""Float32 [batch, 3, height, width] from 0 to 1 → the same."""

# Zhong et al. 2017 (arXiv:1708.04896), section 4: shares of the area, and height ÷ width.
_ERASED_AREA, _ERASED_RATIO = (0.02, 0.4), (0.3, 3.3)


class Augmentation(nn.Module):
    """Mirroring, warping, colours, erasing and mixing, then normalisation.

    Args:
        config: what is done, and how strongly.
        normalization: the network's first layer.
        classes: of the data set.
    """

    def __init__(self, config: AugmentationConfig, normalization: Normalization, classes: int) -> None:
        super().__init__()
        self.mirror = config.mirror
        self.operations = operations(config)
        self.mix = Mix(config.mixup, config.cutmix, classes) if config.mixup or config.cutmix else None
        self.normalization = normalization

    @torch.no_grad()
    def forward(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the network learns from.

        Args:
            pixels: uint8 [batch, height, width, 3].
            targets: int64 [batch] or float32 [batch, classes].

        Returns:
            Normalised float32 [batch, 3, height, width], and the targets: float32 [batch, classes] where
            pictures were mixed.
        """
        if self.mirror:
            pixels = mirrored(pixels)
        if not self.operations and self.mix is None:
            inputs: Tensor = self.normalization(pixels)
            return inputs, targets
        images = self.images(pixels)
        if self.mix is not None:
            images, targets = self.mix(images, targets)
        return self.normalization.of_shares(images), targets

    def images(self, pixels: Tensor) -> Tensor:
        """Operations alone: uint8 [batch, height, width, 3] → float32 [batch, 3, height, width], 0 to 1."""
        images = pixels.permute(0, 3, 1, 2).float() / 255
        for operation in self.operations:
            images = operation(images)
        return images


def mirrored(pixels: Tensor) -> Tensor:
    """Half of the pictures, drawn at random, left to right: uint8 [batch, height, width, 3]."""
    chosen = torch.rand(len(pixels)) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1).to(pixels.device), pixels.flip(2), pixels)


def operations(config: AugmentationConfig) -> list[Operation]:
    """What `config` asks for, in the order in which it is done."""
    found: list[Operation] = []
    if config.shift or config.rotation or config.shear or config.zoom:
        found.append(affine(config.shift, config.rotation, config.shear, config.zoom))
    if config.elastic:
        found.append(elastic(config.elastic))
    if config.rand_augment:
        found.append(rand_augment(config.rand_augment, config.rand_augment_operations))
    if config.trivial_augment:
        found.append(trivial_augment())
    if config.colour:
        found.append(_colour(config.colour))
    if config.lighting:
        found.append(Lighting(config.lighting))
    if config.erasing:
        found.append(_erasing(config.erasing))
    return found


def _colour(strength: float) -> Operation:
    """Brightness, contrast, saturation, and a quarter as much hue, in a random order (Chen et al. 2020,
    arXiv:2002.05709, appendix A)."""
    from kornia.augmentation import ColorJitter

    jitter: Operation = ColorJitter(strength, strength, strength, min(0.5, strength / 4), p=1.0)
    return jitter


def _erasing(probability: float) -> Operation:
    """A rectangle turned grey, near the mean of photographs (Zhong et al. 2017, arXiv:1708.04896)."""
    from kornia.augmentation import RandomErasing

    erasing: Operation = RandomErasing(_ERASED_AREA, _ERASED_RATIO, value=0.45, p=probability)
    return erasing
