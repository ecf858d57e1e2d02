"""ResNet-20 to -1202 for pictures of about 32 pixels (He et al. 2015, arXiv:1512.03385, section 4.2)."""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize
from training.models.resnet import conv3x3

DEPTHS = (20, 32, 44, 56, 110, 1202)


class CifarBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters (the paper's option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = OptionA(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, h / stride, w / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class OptionA(nn.Module):
    """The identity, subsampled and with channels of zeros added.

    The paper doesn't say where the zeros go. Half go before and half behind, as in the widely used
    checkpoints of akamaster/pytorch_resnet_cifar10, whose weights would mean nothing otherwise.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (channels_out - channels_in) // 2
        self.behind = channels_out - channels_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, h / stride, w / stride]."""
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.before + self.behind:
            x = F.pad(x, (0, 0, 0, 0, self.before, self.behind))
        return x


class CifarResNet(Classifier):
    """A 3x3 stem, three stages of n blocks with 16, 32 and 64 channels, average pooling.

    Args:
        depth: 6n + 2 weighted layers.
        classes: logits.
    """

    trunk = (
        ("stem", ("conv1", "bn1")),
        ("layer1", ("layer1",)),
        ("layer2", ("layer2",)),
        ("layer3", ("layer3",)),
    )

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__(feature_channels=64)
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.fc = nn.Linear(self.embedding_dimension, classes)
        initialize(self)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 64, h / 4, w / 4]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer1(x)
        x = self.layer2(x)
        maps: Tensor = self.layer3(x)
        return maps


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = CifarBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(CifarBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def cifar_resnet(depth: int) -> Callable[[int], CifarResNet]:
    """The builder (classes → network) of ResNet-20, -32, -44, -56, -110 or -1202 for CIFAR."""
    return lambda classes: CifarResNet(depth, classes)
