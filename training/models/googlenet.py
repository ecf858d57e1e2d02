"""GoogLeNet, or Inception-v1 (Szegedy et al. 2014, arXiv:1409.4842, table 1 and figure 3).

With torchvision's parameter names, batch normalisation, and its 3x3 convolutions where the paper has
5x5: so were the published weights trained.
"""

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize
from training.models.inception_parts import Branches, ConvNorm


class GoogLeNet(Classifier):
    """A stem and nine Inception modules; two auxiliary heads help training.

    Args:
        classes: logits.
        auxiliary: whether it has the auxiliary heads.
    """

    trunk = (
        ("stem", ("conv1", "conv2", "conv3")),
        ("inception3", ("inception3a", "inception3b")),
        ("inception4", tuple(f"inception4{letter}" for letter in "abcde")),
        ("inception5", ("inception5a", "inception5b")),
    )

    def __init__(self, classes: int, auxiliary: bool = True) -> None:
        super().__init__(feature_channels=1024, dropout=0.2)
        self.conv1 = ConvNorm(3, 64, 7, stride=2, padding=3)
        self.conv2 = ConvNorm(64, 64, 1)
        self.conv3 = ConvNorm(64, 192, 3, padding=1)
        self.inception3a = _inception(192, 64, (96, 128), (16, 32), 32)
        self.inception3b = _inception(256, 128, (128, 192), (32, 96), 64)
        self.inception4a = _inception(480, 192, (96, 208), (16, 48), 64)
        self.inception4b = _inception(512, 160, (112, 224), (24, 64), 64)
        self.inception4c = _inception(512, 128, (128, 256), (24, 64), 64)
        self.inception4d = _inception(512, 112, (144, 288), (32, 64), 64)
        self.inception4e = _inception(528, 256, (160, 320), (32, 128), 128)
        self.inception5a = _inception(832, 256, (160, 320), (32, 128), 128)
        self.inception5b = _inception(832, 384, (192, 384), (48, 128), 128)
        if auxiliary:
            self.aux1 = AuxiliaryHead(512, classes)
            self.aux2 = AuxiliaryHead(528, classes)
            self.auxiliary_weights = (0.3, 0.3)
            self.auxiliary_head_names = ("aux1.fc2", "aux2.fc2")
        self.fc = nn.Linear(self.embedding_dimension, classes)
        initialize(self)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 1024, h / 32, w / 32]."""
        return self._to_5b(self._to_4d(self._to_4a(x)))

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        """Float32 [batch, 3, height, width] → logits of the head and of both auxiliary heads."""
        maps_4a = self._to_4a(x)
        maps_4d = self._to_4d(maps_4a)
        logits = self.classify(self.pool(self._to_5b(maps_4d)))
        if not self.auxiliary_weights:
            return (logits,)
        return logits, self.aux1(maps_4a), self.aux2(maps_4d)

    def _to_4a(self, x: Tensor) -> Tensor:
        x = _halve(self.conv1(x))
        x = _halve(self.conv3(self.conv2(x)))
        x = self.inception3a(x)
        x = _halve(self.inception3b(x))
        maps: Tensor = self.inception4a(x)
        return maps

    def _to_4d(self, x: Tensor) -> Tensor:
        x = self.inception4b(x)
        x = self.inception4c(x)
        maps: Tensor = self.inception4d(x)
        return maps

    def _to_5b(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.inception4e(x), 2, stride=2, ceil_mode=True)
        x = self.inception5a(x)
        maps: Tensor = self.inception5b(x)
        return maps


class AuxiliaryHead(nn.Module):
    """A classifier half-way (section 5): its gradient reaches the lower layers more directly."""

    def __init__(self, channels_in: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels_in, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → logits [batch, classes]."""
        x = self.conv(F.adaptive_avg_pool2d(maps, 4))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


def _inception(
    channels_in: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int
) -> Branches:
    """Figure 2b: 1x1, 3x3 and "5x5" convolutions and a max pooling, side by side.

    Args:
        channels_in: of the input.
        one: channels of the 1x1 branch.
        three, five: of the 1x1 that reduces and of the convolution behind it.
        pooled: of the 1x1 behind the pooling.
    """
    return Branches(
        ConvNorm(channels_in, one, 1),
        (ConvNorm(channels_in, three[0], 1), ConvNorm(three[0], three[1], 3, padding=1)),
        (ConvNorm(channels_in, five[0], 1), ConvNorm(five[0], five[1], 3, padding=1)),
        (nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), ConvNorm(channels_in, pooled, 1)),
        first=1,
    )


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
