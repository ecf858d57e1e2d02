"""Inception-ResNet-v2 (Szegedy et al. 2016, arXiv:1602.07261, figures 15 to 19), with timm's parameter names.

As in the published weights, and in Google's own code, the stem is Inception-v3's and not figure 3's.
"""

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize
from training.models.inception_parts import Branches, ConvNorm, Residual, conv1xn, convnx1, mean3x3


class InceptionResNetV2(Classifier):
    """A stem, then 10, 20 and 10 residual Inception modules with reductions between them.

    Args:
        classes: logits.
    """

    head_name = "classif"
    trunk = (
        ("stem", ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a")),
        ("inception_a", ("mixed_5b", "repeat")),
        ("inception_b", ("mixed_6a", "repeat_1")),
        ("inception_c", ("mixed_7a", "repeat_2", "block8", "conv2d_7b")),
    )

    def __init__(self, classes: int) -> None:
        super().__init__(feature_channels=1536, dropout=0.2)
        self.conv2d_1a = ConvNorm(3, 32, 3, stride=2)
        self.conv2d_2a = ConvNorm(32, 32, 3)
        self.conv2d_2b = ConvNorm(32, 64, 3, padding=1)
        self.conv2d_3b = ConvNorm(64, 80, 1)
        self.conv2d_4a = ConvNorm(80, 192, 3)
        self.mixed_5b = _mixed_5b()
        self.repeat = nn.Sequential(*(_inception_a(scale=0.17) for _ in range(10)))
        self.mixed_6a = _reduction_a()
        self.repeat_1 = nn.Sequential(*(_inception_b(scale=0.10) for _ in range(20)))
        self.mixed_7a = _reduction_b()
        self.repeat_2 = nn.Sequential(*(_inception_c(scale=0.20) for _ in range(9)))
        self.block8 = _inception_c(scale=1.0, activated=False)
        self.conv2d_7b = ConvNorm(2080, 1536, 1)
        self.classif = nn.Linear(self.embedding_dimension, classes)
        initialize(self)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 1536, ~h / 32, ~w / 32]."""
        x = self.conv2d_1a(x)
        x = self.conv2d_2a(x)
        x = self.conv2d_2b(x)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv2d_3b(x)
        x = self.conv2d_4a(x)
        x = F.max_pool2d(x, 3, stride=2)

        x = self.mixed_5b(x)  # 320 × 35² of a picture of 299 pixels
        x = self.repeat(x)
        x = self.mixed_6a(x)  # 1088 × 17²
        x = self.repeat_1(x)
        x = self.mixed_7a(x)  # 2080 × 8²
        x = self.repeat_2(x)
        x = self.block8(x)
        maps: Tensor = self.conv2d_7b(x)
        return maps


def _mixed_5b() -> Branches:
    """192 → 320 channels."""
    return Branches(
        ConvNorm(192, 96, 1),
        (ConvNorm(192, 48, 1), ConvNorm(48, 64, 5, padding=2)),
        (ConvNorm(192, 64, 1), ConvNorm(64, 96, 3, padding=1), ConvNorm(96, 96, 3, padding=1)),
        (mean3x3(), ConvNorm(192, 64, 1)),
    )


def _inception_a(scale: float) -> Residual:
    """Figure 16, at 35 x 35."""
    return Residual(
        ConvNorm(320, 32, 1),
        (ConvNorm(320, 32, 1), ConvNorm(32, 32, 3, padding=1)),
        (ConvNorm(320, 32, 1), ConvNorm(32, 48, 3, padding=1), ConvNorm(48, 64, 3, padding=1)),
        width=128,
        channels=320,
        scale=scale,
    )


def _reduction_a() -> Branches:
    """Figure 7 with table 1's widths, 320 → 1088 channels."""
    return Branches(
        ConvNorm(320, 384, 3, stride=2),
        (ConvNorm(320, 256, 1), ConvNorm(256, 256, 3, padding=1), ConvNorm(256, 384, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def _inception_b(scale: float) -> Residual:
    """Figure 17, at 17 x 17."""
    return Residual(
        ConvNorm(1088, 192, 1),
        (ConvNorm(1088, 128, 1), conv1xn(128, 160, 7), convnx1(160, 192, 7)),
        width=384,
        channels=1088,
        scale=scale,
    )


def _reduction_b() -> Branches:
    """Figure 18, 1088 → 2080 channels."""
    return Branches(
        (ConvNorm(1088, 256, 1), ConvNorm(256, 384, 3, stride=2)),
        (ConvNorm(1088, 256, 1), ConvNorm(256, 288, 3, stride=2)),
        (ConvNorm(1088, 256, 1), ConvNorm(256, 288, 3, padding=1), ConvNorm(288, 320, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )


def _inception_c(scale: float, activated: bool = True) -> Residual:
    """Figure 19, at 8 x 8."""
    return Residual(
        ConvNorm(2080, 192, 1),
        (ConvNorm(2080, 192, 1), conv1xn(192, 224, 3), convnx1(224, 256, 3)),
        width=448,
        channels=2080,
        scale=scale,
        activated=activated,
    )
