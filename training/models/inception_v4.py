"""Inception-v4 (Szegedy et al. 2016, arXiv:1602.07261, figures 3 to 9), with timm's parameter names."""

from typing import Any

import torch
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize
from training.models.inception_parts import Branches, ConvNorm, conv1xn, convnx1, mean3x3


class InceptionV4(Classifier):
    """Figure 9: a stem, 4 Inception-A, a reduction, 7 Inception-B, a reduction, 3 Inception-C.

    In state dicts all of these are numbered through as `features.0` to `features.21`, as in the
    published ones; as an attribute that name is taken.

    Args:
        classes: logits.
    """

    head_name = "last_linear"
    trunk = (
        ("stem", ("stem",)),
        ("inception_a", ("inception_a",)),
        ("inception_b", ("reduction_a", "inception_b")),
        ("inception_c", ("reduction_b", "inception_c")),
    )

    def __init__(self, classes: int) -> None:
        super().__init__(feature_channels=1536, dropout=0.2)
        self.stem = nn.Sequential(
            ConvNorm(3, 32, 3, stride=2),
            ConvNorm(32, 32, 3),
            ConvNorm(32, 64, 3, padding=1),
            Halving(pool_first=True, channels_in=64, channels_out=96),
            _stem_branches(),
            Halving(pool_first=False, channels_in=192, channels_out=192),
        )
        self.inception_a = nn.Sequential(*(_inception_a() for _ in range(4)))
        self.reduction_a = _reduction_a()
        self.inception_b = nn.Sequential(*(_inception_b() for _ in range(7)))
        self.reduction_b = _reduction_b()
        self.inception_c = nn.Sequential(*(InceptionC() for _ in range(3)))
        self.last_linear = nn.Linear(self.embedding_dimension, classes)
        initialize(self)
        self.register_state_dict_post_hook(_number_through)  # type: ignore[no-untyped-call] # PyTorch's
        self.register_load_state_dict_pre_hook(_name_again)  # type: ignore[no-untyped-call] # PyTorch's

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 1536, ~h / 32, ~w / 32]."""
        x = self.stem(x)  # 384 × 35² of a picture of 299 pixels
        x = self.inception_a(x)
        x = self.reduction_a(x)  # 1024 × 17²
        x = self.inception_b(x)
        x = self.reduction_b(x)  # 1536 × 8²
        maps: Tensor = self.inception_c(x)
        return maps


class Halving(nn.Module):
    """A 3x3 convolution and a 3x3 maximum of stride 2, side by side (figure 3).

    Args:
        pool_first: whether the maximum's channels come first.
        channels_in: of the input.
        channels_out: of the convolution.
    """

    def __init__(self, pool_first: bool, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels_in, channels_out, 3, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2)
        self.pool_first = pool_first

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_in + channels_out, ~h / 2, ~w / 2]."""
        both = [self.maxpool(x), self.conv(x)]
        return torch.cat(both if self.pool_first else both[::-1], dim=1)


class InceptionC(nn.Module):
    """1x1, two that end in 1x3 and 3x1 side by side, and a mean (figure 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNorm(1536, 256, 1)
        self.branch1_0 = ConvNorm(1536, 384, 1)
        self.branch1_1a = conv1xn(384, 256, 3)
        self.branch1_1b = convnx1(384, 256, 3)
        self.branch2_0 = ConvNorm(1536, 384, 1)
        self.branch2_1 = convnx1(384, 448, 3)
        self.branch2_2 = conv1xn(448, 512, 3)
        self.branch2_3a = conv1xn(512, 256, 3)
        self.branch2_3b = convnx1(512, 256, 3)
        self.branch3 = nn.Sequential(mean3x3(), ConvNorm(1536, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1536, h, w] → the same."""
        short = self.branch1_0(x)
        long = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        spread = [self.branch1_1a(short), self.branch1_1b(short)]
        spread += [self.branch2_3a(long), self.branch2_3b(long)]
        return torch.cat([self.branch0(x), *spread, self.branch3(x)], dim=1)


def _stem_branches() -> Branches:
    """The middle of figure 3: 160 → 192 channels."""
    return Branches(
        (ConvNorm(160, 64, 1), ConvNorm(64, 96, 3)),
        (ConvNorm(160, 64, 1), conv1xn(64, 64, 7), convnx1(64, 64, 7), ConvNorm(64, 96, 3)),
    )


def _inception_a() -> Branches:
    """Figure 4, 384 → 384 channels."""
    return Branches(
        ConvNorm(384, 96, 1),
        (ConvNorm(384, 64, 1), ConvNorm(64, 96, 3, padding=1)),
        (ConvNorm(384, 64, 1), ConvNorm(64, 96, 3, padding=1), ConvNorm(96, 96, 3, padding=1)),
        (mean3x3(), ConvNorm(384, 96, 1)),
    )


def _reduction_a() -> Branches:
    """Figure 7 with table 1's widths, 384 → 1024 channels."""
    return Branches(
        ConvNorm(384, 384, 3, stride=2),
        (ConvNorm(384, 192, 1), ConvNorm(192, 224, 3, padding=1), ConvNorm(224, 256, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def _inception_b() -> Branches:
    """Figure 5, 1024 → 1024 channels."""
    return Branches(
        ConvNorm(1024, 384, 1),
        (ConvNorm(1024, 192, 1), conv1xn(192, 224, 7), convnx1(224, 256, 7)),
        (
            ConvNorm(1024, 192, 1),
            convnx1(192, 192, 7),
            conv1xn(192, 224, 7),
            convnx1(224, 224, 7),
            conv1xn(224, 256, 7),
        ),
        (mean3x3(), ConvNorm(1024, 128, 1)),
    )


def _reduction_b() -> Branches:
    """Figure 8, 1024 → 1536 channels."""
    return Branches(
        (ConvNorm(1024, 192, 1), ConvNorm(192, 192, 3, stride=2)),
        (
            ConvNorm(1024, 256, 1),
            conv1xn(256, 256, 7),
            convnx1(256, 320, 7),
            ConvNorm(320, 320, 3, stride=2),
        ),
        nn.MaxPool2d(3, stride=2),
    )


# The attribute of features.0, features.1, …
_NUMBERED = (
    *(f"stem.{number}" for number in range(6)),
    *(f"inception_a.{number}" for number in range(4)),
    "reduction_a",
    *(f"inception_b.{number}" for number in range(7)),
    "reduction_b",
    *(f"inception_c.{number}" for number in range(3)),
)


def _number_through(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    _rename(state, {f"{prefix}{ours}.": f"{prefix}features.{n}." for n, ours in enumerate(_NUMBERED)})


def _name_again(_module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
    _rename(state, {f"{prefix}features.{n}.": f"{prefix}{ours}." for n, ours in enumerate(_NUMBERED)})


def _rename(state: dict[str, Any], prefixes: dict[str, str]) -> None:
    """Give names that begin with a key of `prefixes` the beginning beside it; the order stays."""
    items = list(state.items())
    state.clear()
    for name, value in items:
        old = next((old for old in prefixes if name.startswith(old)), "")
        state[prefixes.get(old, "") + name.removeprefix(old)] = value
