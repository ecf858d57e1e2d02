"""ZFNet (Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks", figure 3).

arXiv:1311.2901. AlexNet with smaller and denser first filters, and no groups. Where the paper names no
constants, AlexNet's are taken (Krizhevsky et al. 2012, sections 3.3 and 4.2).
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.models.classifier import Classifier, initialize_rectified
from training.models.fixed_grid import fixed_grid

_GRID = 6
_CHANNELS = (96, 256, 384, 384, 256)


class ZFNet(Classifier):
    """Five convolutions, then two hidden layers, the second of which is the embedding.

    The third max pooling is adaptive: at 224 pixels it is the paper's, of other sizes it makes the same 6 x 6
    places that the first hidden layer has weights for. `dropout` is that of both hidden layers.

    `fovea-train fit --data digits --arch zfnet --epochs 8` (12 minutes of a busy core): 93.3% of 451 test
    images, at 31 pixels, where all places see the same one of the last maps.

    Args:
        classes: logits.
        channels: of the convolutions' maps.
        hidden: width of the hidden layers.
    """

    trunk = (
        *((name, (name,)) for name in ("conv1", "conv2", "conv3", "conv4", "conv5")),
        # Behind a projection the pooling has another place.
        *((name, (f"pool.{name}", f"pool.pooling.{name}")) for name in ("fc6", "fc7")),
    )

    def __init__(
        self, classes: int, channels: tuple[int, int, int, int, int] = _CHANNELS, hidden: int = 4096
    ) -> None:
        one, two, three, four, five = channels
        super().__init__(feature_channels=five, dropout=0.5)
        self.conv1 = nn.Conv2d(3, one, 7, stride=2, padding=1)
        self.conv2 = nn.Conv2d(one, two, 5, stride=2)
        self.conv3 = nn.Conv2d(two, three, 3, padding=1)
        self.conv4 = nn.Conv2d(three, four, 3, padding=1)
        self.conv5 = nn.Conv2d(four, five, 3, padding=1)
        self.pool = HiddenLayers(five, hidden, self.dropout)
        self.embedding_dimension = hidden
        initialize_rectified(self)
        self.fc = nn.Linear(hidden, classes)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 256, h / 16 - 1, w / 16 - 1]."""
        x = F.relu(self.conv1(x))  # 96 × 110²
        x = _contrast_normalized(_halved(x))  # 96 × 55²
        x = F.relu(self.conv2(x))  # 256 × 26²
        x = _contrast_normalized(_halved(x))  # 256 × 13²
        x = F.relu(self.conv3(x))  # 384 × 13²
        x = F.relu(self.conv4(x))  # 384 × 13²
        return F.relu(self.conv5(x))  # 256 × 13²

    def dropouts(self) -> list[nn.Dropout]:
        """Of both hidden layers."""
        return [module for module in self.modules() if isinstance(module, nn.Dropout)]


class HiddenLayers(nn.Module):
    """Max pooling to 6 x 6, and two fully connected layers (6 and 7).

    Args:
        channels: of the feature maps.
        width: of both layers.
        dropout: between them.
    """

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.fc6 = nn.Linear(channels * _GRID**2, width)
        self.dropout = nn.Dropout(dropout)
        self.fc7 = nn.Linear(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, width]."""
        x = fixed_grid(maps, _GRID, torch.amax).flatten(1)
        x = F.relu(self.fc6(x))
        return F.relu(self.fc7(self.dropout(x)))


def _halved(x: Tensor) -> Tensor:
    # Of two pixels a window of three sees the same, but OpenVINO refuses those larger than a map.
    height, width = (2 if side == 2 else 3 for side in x.shape[-2:])
    return F.max_pool2d(x, (height, width), stride=2, ceil_mode=True)


def _contrast_normalized(x: Tensor) -> Tensor:
    """AlexNet's: x / (2 + 0.0001 Σx²)^0.75 over five neighbouring maps; PyTorch takes their mean."""
    return F.local_response_norm(x, size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)
