"""Network in Network (Lin, Chen & Yan 2013, arXiv:1312.4400), the authors' network for CIFAR-10.

Three mlpconv blocks: a convolution and two 1x1 convolutions, each rectified; the last one makes a map per
class, whose means are the logits. The paper (equation 2) and the authors' Caffe file rectify these maps too.
Here they keep their sign. Mean and last 1x1 convolution are then both linear and change places, so that the
convolution is a linear head on 192 pooled features, which can be replaced, probed and searched by; and a
class whose map is nowhere positive still learns. Head weights applied to each place give the class's map.
"""

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize_rectified

Widths = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int]]
_WIDTHS: Widths = ((192, 160, 96), (192, 192, 192), (192, 192))


class NiN(Classifier):
    """For pictures of 32 pixels; 966,986 parameters with 10 classes.

    `dropout` is that of the maps between blocks, as in the paper: what is pooled is left whole.

    `fovea-train fit --data digits --arch nin` (20 epochs, 6 minutes of a busy core): 96.7% of 451 test
    images.

    Args:
        classes: logits.
        widths: channels of each block's convolutions; the third block's last one is the head.
    """

    trunk = (("block1", ("block1",)), ("block2", ("block2",)), ("block3", ("block3",)))

    def __init__(self, classes: int, widths: Widths = _WIDTHS) -> None:
        super().__init__(feature_channels=widths[2][-1])
        self.block1 = mlpconv(3, widths[0], kernel=5)
        self.block2 = mlpconv(widths[0][-1], widths[1], kernel=5, dropout=0.5)
        self.block3 = mlpconv(widths[1][-1], widths[2], kernel=3, dropout=0.5)
        initialize_rectified(self)
        self.fc = nn.Linear(self.feature_channels, classes)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 192, h / 4, w / 4]."""
        x = self.block1(x)  # 96 × 32²
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)  # 96 × 16²
        x = self.block2(x)  # 192 × 16²
        # There is no padding to count; saying so makes ONNX divide by what the last windows really hold.
        x = F.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False)  # 192 × 8²
        maps: Tensor = self.block3(x)  # 192 × 8²
        return maps

    def dropouts(self) -> list[nn.Dropout]:
        """At the beginning of the second and of the third block."""
        blocks = (*self.block2.children(), *self.block3.children())
        return [module for module in blocks if isinstance(module, nn.Dropout)]


def mlpconv(channels_in: int, widths: tuple[int, ...], kernel: int, dropout: float = 0.0) -> nn.Sequential:
    """A small perceptron slid over the picture (section 3.1).

    Args:
        channels_in: of the input.
        widths: channels behind the convolution and behind each 1x1 convolution.
        kernel: of the first convolution; it keeps the picture's size.
        dropout: of the input.
    """
    layers: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    for number, width in enumerate(widths):
        side = 1 if number else kernel
        layers += [nn.Conv2d(channels_in, width, side, padding=side // 2), nn.ReLU(inplace=True)]
        channels_in = width
    return nn.Sequential(*layers)
