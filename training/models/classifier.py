"""What every architecture here offers: logits, and the pooled features that they come from."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """A network whose last layer, `fc`, turns pooled features into logits.

    Attributes:
        embedding_dimension: the width of the pooled features.
        fc: the head.
    """

    embedding_dimension: int
    fc: nn.Linear

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → pooled float32 [batch, embedding_dimension]."""

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [batch, 3, height, width], normalised → logits float32 [batch, classes]."""
        logits: Tensor = self.fc(self.features(x))
        return logits


def initialize(model: nn.Module) -> None:
    """Draw a residual network's convolutions as He et al. 2015 (arXiv:1502.01852) do.

    Fan-out and gain √2 for convolutions, 1 and 0 for batch normalisation; a head keeps PyTorch's own.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
