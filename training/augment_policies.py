"""RandAugment and TrivialAugment: operations drawn from a list, on kornia's operations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Operation = Callable[[Tensor], Tensor]

# kornia draws which operations once a call, so a batch takes several calls: each eighth has its own.
_GROUPS = 8
# kornia's lists are not used: their shears reach 54 degrees, and at low magnitudes their brightness,
# contrast and solarize are at their strongest. Here magnitude 0 changes (almost) nothing, and colours may
# fall as well as rise, as timm's "increasing" variant has it (without inverting and solarizing, which at any
# magnitude turns a picture's lights into their negative); shears are tan⁻¹(0.3) = 16.7 degrees, of which
# kornia wants a 180th.
_SHEAR = 16.7 / 180
_RAND_AUGMENT = [
    ("auto_contrast", 0, 1),
    ("equalize", 0, 1),
    ("rotate", -30.0, 30.0),
    ("posterize", 4.0, 8.0),
    ("color", 1.0, 1.9),
    ("contrast", 1.0, 1.9),
    ("brightness", 1.0, 1.5),
    ("sharpness", 1.0, 1.9),
    ("shear_x", -_SHEAR, _SHEAR),
    ("shear_y", -_SHEAR, _SHEAR),
    ("translate_x", -0.45, 0.45),
    ("translate_y", -0.45, 0.45),
]
# Factors, of which kornia would only take those above 1.
_FACTORS = ("Saturate", "Contrast", "Brightness", "Sharpness")
# The paper has one more, that leaves pictures as they are.
_TRIVIAL_AUGMENT = [
    ("auto_contrast", 0, 1),
    ("equalize", 0, 1),
    ("rotate", -30.0, 30.0),
    ("posterize", 4.0, 8.0),
    ("solarize", 0.0, 1.0),
    ("color", 0.1, 1.9),
    ("contrast", 0.1, 1.9),
    ("brightness", 0.5, 1.5),
    ("sharpness", 0.1, 1.9),
    ("shear_x", -_SHEAR, _SHEAR),
    ("shear_y", -_SHEAR, _SHEAR),
    ("translate_x", -0.3, 0.3),
    ("translate_y", -0.3, 0.3),
]


def rand_augment(magnitude: int, count: int) -> Operation:
    """`count` operations of one strength (Cubuk et al. 2019, arXiv:1909.13719).

    Args:
        magnitude: 1 to 29.
        count: 1 to 12 operations, different ones.

    Returns:
        Float32 [batch, 3, height, width] from 0 to 1 → the same.
    """
    from kornia.augmentation.auto import RandAugment

    chosen = RandAugment(n=count, m=magnitude, policy=[[entry] for entry in _RAND_AUGMENT])
    modules: list[Any] = list(chosen.modules())
    for module in modules:
        if type(module).__name__ in _FACTORS:
            # kornia has no argument for it.
            module._magnitude_fn = _either_way
    return partial(_in_groups, chosen)


def trivial_augment() -> Operation:
    """One operation of random strength (Müller & Hutter 2021, arXiv:2103.10158).

    Returns:
        Float32 [batch, 3, height, width] from 0 to 1 → the same.
    """
    from kornia.augmentation.auto import TrivialAugment

    chosen = TrivialAugment(policy=[[entry] for entry in _TRIVIAL_AUGMENT])
    unchanged = 1 / (len(_TRIVIAL_AUGMENT) + 1)

    def once(images: Tensor) -> Tensor:
        return images if float(torch.rand(())) < unchanged else chosen(images)

    return partial(_in_groups, once)


def _either_way(factors: Tensor) -> Tensor:
    """1 + x → 1 + x or 1 - x, by a coin for each picture."""
    return 1 + (factors - 1) * torch.where(torch.rand(len(factors)) < 0.5, -1.0, 1.0)


def _in_groups(operation: Operation, images: Tensor) -> Tensor:
    return torch.cat([operation(group) for group in images.chunk(_GROUPS)]).clamp(0, 1)
