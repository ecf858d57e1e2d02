"""LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2).

As in the paper up to F6: trainable subsampling, the partial connections of C3 (table I), the scaled
tanh; 60,000 parameters. Instead of its ten radial basis functions it ends in a linear head, as every
classifier here.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, GlobalAverage

# Table I: the maps of S2 that each map of C3 sees.
_CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet5(Classifier):
    """Three 5x5 convolutions with subsampling between them, for gray pictures of 32 pixels.

    A colour picture is seen as the mean of its channels; of a larger one than 32 pixels C5 makes maps,
    and F6 sees their mean.

    Args:
        classes: logits.
    """

    trunk = (("c1", ("c1", "s2")), ("c3", ("c3", "s4")), ("c5", ("c5",)), ("f6", ("pool",)))

    def __init__(self, classes: int) -> None:
        super().__init__(feature_channels=120)
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = PartialConv()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.pool = F6(120, 84)
        self.embedding_dimension = 84
        self.fc = nn.Linear(84, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _initialize(module)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 120, h / 4 - 7, w / 4 - 7]."""
        x = x.mean(dim=1, keepdim=True)  # 1 × 32²
        x = squashed(self.c1(x))  # 6 × 28²
        x = squashed(self.s2(x))  # 6 × 14²
        x = squashed(self.c3(x))  # 16 × 10²
        x = squashed(self.s4(x))  # 16 × 5²
        return squashed(self.c5(x))  # 120 × 1²


class Subsampling(nn.Module):
    """The sum of each 2 x 2 pixels, times a coefficient, plus a bias, of each map its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, channels, h / 2, w / 2]."""
        return 4 * F.avg_pool2d(x, 2) * self.coefficient + self.bias


class PartialConv(nn.Module):
    """C3: sixteen 5x5 convolutions, each of some of the six maps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(sources), 1, 5) for sources in _CONNECTIONS)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 6, h, w] → [batch, 16, h - 4, w - 4]."""
        pairs = zip(self.maps, _CONNECTIONS, strict=True)
        return torch.cat([conv(x[:, list(sources)]) for conv, sources in pairs], dim=1)


class F6(nn.Module):
    """The mean over the picture, which is one pixel of one of 32, and a fully connected layer."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.average = GlobalAverage()
        self.linear = nn.Linear(channels, width)

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, width]."""
        return squashed(self.linear(self.average(maps)))


def squashed(x: Tensor) -> Tensor:
    """1.7159 tanh(2x / 3), which keeps ±1 (appendix A)."""
    return 1.7159 * torch.tanh(2 / 3 * x)


def _initialize(layer: nn.Conv2d | nn.Linear) -> None:
    """Deviation 1 / √(number of inputs), which with this tanh keeps the signal's size.

    LeCun et al. 1998, "Efficient BackProp", section 4.6. LeNet-5's own ±2.4 ÷ (number of inputs) shrinks
    it layer by layer, which only the paper's second-order steps make up for.
    """
    bound = math.sqrt(3 / math.prod(layer.weight.shape[1:]))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
