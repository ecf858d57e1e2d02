"""Inception-v3 (Szegedy et al. 2015, arXiv:1512.00567, table 1, figures 5 to 7) with torchvision's names."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize
from training.models.inception_parts import ConvNorm, conv1xn, convnx1


class InceptionV3(Classifier):
    """A stem, eleven Inception modules in three sizes, and an auxiliary head that helps training.

    Args:
        classes: logits.
        auxiliary: whether it has the auxiliary head.
    """

    trunk = (
        ("stem", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")),
        ("mixed5", ("Mixed_5b", "Mixed_5c", "Mixed_5d")),
        ("mixed6", tuple(f"Mixed_6{letter}" for letter in "abcde")),
        ("mixed7", ("Mixed_7a", "Mixed_7b", "Mixed_7c")),
    )

    def __init__(self, classes: int, auxiliary: bool = True) -> None:
        super().__init__(feature_channels=2048, dropout=0.5)
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = Figure5(192, pooled=32)
        self.Mixed_5c = Figure5(256, pooled=64)
        self.Mixed_5d = Figure5(288, pooled=64)
        self.Mixed_6a = ReductionTo17()
        self.Mixed_6b = Figure6(width=128)
        self.Mixed_6c = Figure6(width=160)
        self.Mixed_6d = Figure6(width=160)
        self.Mixed_6e = Figure6(width=192)
        if auxiliary:
            self.AuxLogits = AuxiliaryHead(classes)
            self.auxiliary_weights = (0.4,)
            self.auxiliary_head_names = ("AuxLogits.fc",)
        self.Mixed_7a = ReductionTo8()
        self.Mixed_7b = Figure7(1280)
        self.Mixed_7c = Figure7(2048)
        self.fc = nn.Linear(self.embedding_dimension, classes)
        initialize(self)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 2048, ~h / 32, ~w / 32]."""
        return self._to_7c(self._to_6e(x))

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        """Float32 [batch, 3, height, width] → logits of the head and of the auxiliary head."""
        maps_6e = self._to_6e(x)
        logits = self.classify(self.pool(self._to_7c(maps_6e)))
        return (logits, self.AuxLogits(maps_6e)) if self.auxiliary_weights else (logits,)

    def _to_6e(self, x: Tensor) -> Tensor:  # sizes are those of a picture of 299 pixels
        x = self.Conv2d_1a_3x3(x)  # 32 × 149²
        x = self.Conv2d_2a_3x3(x)
        x = self.Conv2d_2b_3x3(x)
        x = F.max_pool2d(x, 3, stride=2)  # 64 × 73²
        x = self.Conv2d_3b_1x1(x)
        x = self.Conv2d_4a_3x3(x)
        x = F.max_pool2d(x, 3, stride=2)  # 192 × 35²

        x = self.Mixed_5b(x)
        x = self.Mixed_5c(x)
        x = self.Mixed_5d(x)

        x = self.Mixed_6a(x)  # 768 × 17²
        x = self.Mixed_6b(x)
        x = self.Mixed_6c(x)
        x = self.Mixed_6d(x)
        maps: Tensor = self.Mixed_6e(x)
        return maps

    def _to_7c(self, x: Tensor) -> Tensor:
        x = self.Mixed_7a(x)  # 1280 × 8²
        x = self.Mixed_7b(x)
        maps: Tensor = self.Mixed_7c(x)  # 2048 × 8²
        return maps


class Figure5(nn.Module):
    """1x1, 5x5, two 3x3 in a row, and a mean, side by side, at 35 x 35."""

    def __init__(self, channels_in: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels_in, 64, 1)
        self.branch5x5_1 = ConvNorm(channels_in, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(channels_in, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(channels_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, 224 + pooled, h, w]."""
        one = self.branch1x1(x)
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(_mean3x3(x))
        return torch.cat([one, five, double, pooled], dim=1)


class ReductionTo17(nn.Module):
    """3x3, two 3x3 in a row, and a maximum, each of stride 2 (figure 10): 288 × 35² → 768 × 17²."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(288, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 288, h, w] → [batch, 768, ~h / 2, ~w / 2]."""
        three = self.branch3x3(x)
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([three, double, F.max_pool2d(x, 3, stride=2)], dim=1)


class Figure6(nn.Module):
    """1x1, 7x7 and two 7x7 in a row, each factored into 1x7 and 7x1, and a mean, at 17 x 17."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(768, 192, 1)
        self.branch7x7_1 = ConvNorm(768, width, 1)
        self.branch7x7_2 = conv1xn(width, width, 7)
        self.branch7x7_3 = convnx1(width, 192, 7)
        self.branch7x7dbl_1 = ConvNorm(768, width, 1)
        self.branch7x7dbl_2 = convnx1(width, width, 7)
        self.branch7x7dbl_3 = conv1xn(width, width, 7)
        self.branch7x7dbl_4 = convnx1(width, width, 7)
        self.branch7x7dbl_5 = conv1xn(width, 192, 7)
        self.branch_pool = ConvNorm(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 768, h, w] → the same."""
        one = self.branch1x1(x)
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pooled = self.branch_pool(_mean3x3(x))
        return torch.cat([one, seven, double, pooled], dim=1)


class ReductionTo8(nn.Module):
    """3x3, 7x7 with a 3x3 behind it, and a maximum, each of stride 2: 768 × 17² → 1280 × 8²."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(768, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(768, 192, 1)
        self.branch7x7x3_2 = conv1xn(192, 192, 7)
        self.branch7x7x3_3 = convnx1(192, 192, 7)
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 768, h, w] → [batch, 1280, ~h / 2, ~w / 2]."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([three, seven, F.max_pool2d(x, 3, stride=2)], dim=1)


class Figure7(nn.Module):
    """1x1, 3x3 and two 3x3 that end in 1x3 and 3x1 side by side, and a mean, at 8 x 8."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels_in, 320, 1)
        self.branch3x3_1 = ConvNorm(channels_in, 384, 1)
        self.branch3x3_2a = conv1xn(384, 384, 3)
        self.branch3x3_2b = convnx1(384, 384, 3)
        self.branch3x3dbl_1 = ConvNorm(channels_in, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = conv1xn(384, 384, 3)
        self.branch3x3dbl_3b = convnx1(384, 384, 3)
        self.branch_pool = ConvNorm(channels_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, 2048, h, w]."""
        one = self.branch1x1(x)
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = self.branch_pool(_mean3x3(x))
        spread = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        spread += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([one, *spread, pooled], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on the 17 x 17 maps (section 4), averaged to 5 x 5 before its convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(768, 128, 1)
        self.conv1 = ConvNorm(128, 768, 5)
        self.fc = nn.Linear(768, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, 768, h, w] → logits [batch, classes]."""
        # Pictures smaller than the paper's leave no 5 x 5 at this stride.
        small = min(maps.shape[2:]) < 17
        x = F.adaptive_avg_pool2d(maps, 5) if small else F.avg_pool2d(maps, 5, stride=3)
        x = self.conv1(self.conv0(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _mean3x3(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1)
