"""RandAugment and TrivialAugment: operations drawn from a list, on kornia's operations."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Operation = Callable[[Tensor], Tensor]

# kornia draws which operations once a call, so a batch takes several calls: each eighth has its own.
_GROUPS = 8
# kornia's lists are not used: their shears reach 54 degrees, and at low magnitudes their brightness,
# contrast and solarize are at their strongest. Here magnitude 0 changes (almost) nothing, as timm's
# "increasing" variant has it (without solarizing, which at any magnitude turns a picture's lights into
# their negative); shears are tan⁻¹(0.3) = 16.7 degrees, of which kornia wants a 180th.
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
    return partial(_in_groups, chosen)


def trivial_augment() -> Operation:
    """One operation of random strength (Müller & Hutter 2021, arXiv:2103.10158).

    Returns:
        Float32 [batch, 3, height, width] from 0 to 1 → the same.
    """
    from kornia.augmentation.auto import TrivialAugment

    return partial(_in_groups, TrivialAugment(policy=[[entry] for entry in _TRIVIAL_AUGMENT]))


def _in_groups(operation: Operation, images: Tensor) -> Tensor:
    return torch.cat([operation(group) for group in images.chunk(_GROUPS)]).clamp(0, 1)
