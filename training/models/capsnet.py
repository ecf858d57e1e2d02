"""A capsule network (Sabour, Frosst & Hinton 2017, "Dynamic routing between capsules", figure 1).

arXiv:1710.09829. The loss and the reconstruction that go with it are in `margin_loss.py`.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.errors import SettingError
from training.models.capsules import ClassCapsules, lengths
from training.models.classifier import Classifier, initialize_rectified

_PRIMARY_DIMENSION, _CLASS_DIMENSION = 8, 16
# Of lengths: keeps the logits of 0 and 1 finite, at ∓9.2.
_EPSILON = 1e-4


class CapsNet(Classifier):
    """Two convolutions and a layer of capsules, one for each class, for pictures of 28 pixels.

    With 10 classes 6.8 million parameters, as in the paper (here of colour pictures). Of larger pictures the
    primary capsules are averaged to the same 6 x 6 places. Time and memory grow with the number of classes:
    each image has 1,152 votes of 16 numbers for every one.

    A capsule's length is the probability that its class is there, on its own. Its logit is log(l / (1 - l)):
    a sigmoid gives the length back, and a softmax the probability of each class given that exactly one is
    there. A softmax of the lengths themselves, which are all between 0 and 1, couldn't give one of ten
    classes more than 0.23. A temperature then divides the logits as it does those of other networks.

    The embedding is all capsules of an image, side by side: the long one says which class, and its direction
    what it looks like. It grows with the number of classes.

    `fovea-train fit --data digits --arch capsnet --epochs 12` (12 minutes of a busy core): 98.2% of 451 test
    images. Margins teach lengths near 0.9 and 0.1, not how sure to be: the temperature found there is 0.26,
    and brings the calibration error on val from 25% to 1%.

    Args:
        classes: capsules, and logits.
        channels: of the first convolution.
        types: of primary capsules.
    """

    head_name = "pool"
    trunk = (("conv1", ("conv1",)), ("primary", ("primary",)))

    def __init__(self, classes: int, channels: int = 256, types: int = 32) -> None:
        super().__init__(feature_channels=types * _PRIMARY_DIMENSION)
        self.conv1 = nn.Conv2d(3, channels, 9)
        self.primary = nn.Conv2d(channels, self.feature_channels, 9, stride=2)
        initialize_rectified(self)
        self.replace_head(classes)

    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, 256, h / 2 - 8, w / 2 - 8].

        The primary capsules before they are squashed: 32 types, 8 channels each.
        """
        x = F.relu(self.conv1(x))  # 256 × 20²
        maps: Tensor = self.primary(x)  # 32 · 8 × 6²
        return maps

    def lengths(self, features: Tensor) -> Tensor:
        """Pooled features float32 [batch, classes × 16] → of each capsule, float32 [batch, classes]."""
        return lengths(features.reshape(-1, self.classes, _CLASS_DIMENSION))

    def classify(self, features: Tensor) -> Tensor:
        """Pooled features float32 [batch, classes × 16] → logits float32 [batch, classes]."""
        found = self.lengths(features)
        return torch.log(found + _EPSILON) - torch.log(1 - found + _EPSILON)

    @property
    def classes(self) -> int:
        """Capsules."""
        return self.embedding_dimension // _CLASS_DIMENSION

    @property
    def head(self) -> nn.Linear:
        """There is none.

        Raises:
            SettingError: always.
        """
        raise SettingError(
            "CapsNet has no linear head: its logits are the lengths of its capsules; for a projection or a "
            "linear probe expected another architecture"
        )

    def replace_head(self, classes: int) -> None:
        """Give it random capsules for `classes` classes; `embedding_dimension` follows."""
        like = self.primary.weight
        types = self.feature_channels // _PRIMARY_DIMENSION
        capsules = ClassCapsules(
            types, classes, primary_dimension=_PRIMARY_DIMENSION, dimension=_CLASS_DIMENSION
        )
        self.pool = capsules.to(like.device, like.dtype)
        self.embedding_dimension = classes * _CLASS_DIMENSION

    def dropouts(self) -> list[nn.Dropout]:
        """None: a capsule with parts missing is another one, and longer ones than 1 have no logit."""
        return []
