"""What every architecture here offers: feature maps, the pooled features, and the logits made from them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from training.errors import SettingError

Stage = tuple[str, list[nn.Parameter]]


class Classifier(nn.Module, ABC):
    """A trunk that makes feature maps, a pooling, and a linear head.

    Args:
        feature_channels: of the feature maps.
        dropout: the probability that training zeroes a pooled feature before the head.

    Attributes:
        feature_channels: of the feature maps.
        embedding_dimension: the width of the pooled features.
        pool: feature maps → float32 [batch, embedding_dimension]. Who puts another one here sets
            `embedding_dimension` and calls `replace_head`.
        head_name: the attribute that holds the head, dotted where it lies deeper; its name in published
            state dicts.
        trunk: each stage's name and the attributes it is made of, from the input to the feature maps.
        auxiliary_weights: how much the loss of each auxiliary head counts.
        auxiliary_head_names: the attribute of each one's last layer.
    """

    head_name: str = "fc"
    trunk: tuple[tuple[str, tuple[str, ...]], ...]
    feature_channels: int
    embedding_dimension: int
    pool: nn.Module
    auxiliary_weights: tuple[float, ...] = ()
    auxiliary_head_names: tuple[str, ...] = ()

    def __init__(self, feature_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_channels = feature_channels
        self.embedding_dimension = feature_channels
        self.pool = GlobalAverage()
        self._dropout = nn.Dropout(dropout)

    @abstractmethod
    def feature_maps(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → float32 [batch, feature_channels, h, w]."""

    def features(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → pooled float32 [batch, embedding_dimension]."""
        pooled: Tensor = self.pool(self.feature_maps(x))
        return pooled

    def classify(self, features: Tensor) -> Tensor:
        """Pooled features float32 [batch, embedding_dimension] → logits float32 [batch, classes]."""
        logits: Tensor = self.head(self._dropout(features))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → logits float32 [batch, classes]."""
        return self.classify(self.features(x))

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, followed by the logits of each auxiliary head, all float32 [batch, classes]."""
        return (self.forward(x),)

    @property
    def dropout(self) -> float:
        """The probability that training zeroes a pooled feature before the head; can be set.

        Of a network with `dropouts` of its own, that of these.
        """
        return max((module.p for module in self.dropouts()), default=0.0)

    @dropout.setter
    def dropout(self, probability: float) -> None:
        if not 0 <= probability < 1:
            raise ValueError(f"dropout is {probability}; expected from 0 to below 1")
        if probability and not self.dropouts():
            raise SettingError(f"--dropout is {probability}; {type(self).__name__} has none, so expected 0")
        for module in self.dropouts():
            module.p = probability

    def dropouts(self) -> list[nn.Dropout]:
        """What `dropout` sets: the one before the head, unless the network's paper has others."""
        return [self._dropout]

    @property
    def classes(self) -> int:
        """Logits."""
        return self.head.out_features

    @property
    def head(self) -> nn.Linear:
        """The last layer: pooled features → logits."""
        head = self.get_submodule(self.head_name)
        if not isinstance(head, nn.Linear):
            raise TypeError(f"{self.head_name} is {type(head).__name__}; expected a linear layer")
        return head

    def replace_head(self, classes: int) -> None:
        """Give the network a random head of `classes` logits that fits `embedding_dimension`.

        Auxiliary heads are replaced likewise.
        """
        self._replace(self.head_name, self.embedding_dimension, classes)
        for name in self.auxiliary_head_names:
            old = self.get_submodule(name)
            assert isinstance(old, nn.Linear)  # noqa: S101 - of our own networks
            self._replace(name, old.in_features, classes)

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict in the names of this network: the same, but for the adapters."""
        return state

    def stages(self) -> list[Stage]:
        """The parameters from the input to the head, each in exactly one stage.

        The last stage, "head", holds what no stage of the trunk has: the head, the auxiliary heads and
        the pooling's, where it has any.
        """
        waiting = dict(self.named_parameters())
        found: list[Stage] = []
        for name, attributes in self.trunk:
            mine = [parameter for parameter in waiting if within(parameter, attributes)]
            found.append((name, [waiting.pop(parameter) for parameter in mine]))
        return [*found, ("head", list(waiting.values()))]

    def _replace(self, path: str, width: int, classes: int) -> None:
        old = self.get_submodule(path)
        like = next(old.parameters())
        parent, _, name = path.rpartition(".")
        setattr(
            self.get_submodule(parent), name, nn.Linear(width, classes, device=like.device, dtype=like.dtype)
        )


class GlobalAverage(nn.Module):
    """The mean over the picture."""

    def forward(self, maps: Tensor) -> Tensor:
        """[batch, channels, height, width] → [batch, channels]."""
        return maps.mean(dim=(2, 3))


def within(name: str, attributes: Sequence[str]) -> bool:
    """Whether a dotted name is one of `attributes` or lies in one of them."""
    return any(name == attribute or name.startswith(f"{attribute}.") for attribute in attributes)


def initialize(model: nn.Module) -> None:
    """Draw a network's convolutions as He et al. 2015 (arXiv:1502.01852) do.

    Fan-out and gain √2 for convolutions, 1 and 0 for batch normalisation; a head keeps PyTorch's own.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def initialize_rectified(model: nn.Module) -> None:
    """Draw the layers of a network without normalisation so that its signal keeps its size.

    He et al. 2015 (arXiv:1502.01852, equation 10): fan-in and gain √2, for linear layers too; biases 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
