"""What the Inception networks are made of: a convolution that is normalised, and branches side by side."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

Size = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, ReLU.

    Batch normalisation adds 0.001 to the variance, as the networks' TensorFlow originals do.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: Size, stride: int = 1, padding: Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, h', w']."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def conv1xn(channels_in: int, channels_out: int, n: int) -> ConvNorm:
    """A convolution one pixel high and `n` wide that keeps the picture's size."""
    return ConvNorm(channels_in, channels_out, (1, n), padding=(0, n // 2))


def convnx1(channels_in: int, channels_out: int, n: int) -> ConvNorm:
    """A convolution `n` pixels high and one wide that keeps the picture's size."""
    return ConvNorm(channels_in, channels_out, (n, 1), padding=(n // 2, 0))


class Branches(nn.Module):
    """Branches that see the same input, their outputs one behind the other in the channels.

    Args:
        branches: modules of the same output height and width; a tuple of modules is applied in turn.
        first: the number of the first one's name, `branch<number>`, in state dicts.
    """

    def __init__(self, *branches: nn.Module | tuple[nn.Module, ...], first: int = 0) -> None:
        super().__init__()
        for number, branch in enumerate(branches, first):
            self.add_module(
                f"branch{number}", nn.Sequential(*branch) if isinstance(branch, tuple) else branch
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → [batch, the branches' channels together, h', w']."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Residual(nn.Module):
    """Branches, a 1x1 convolution back to the input's width, and a scaled sum with the input.

    Szegedy et al. 2016 (arXiv:1602.07261), figures 16, 17 and 19; section 3.3 for the scale, without
    which training dies.

    Args:
        branches: as of `Branches`.
        width: channels of the branches together.
        channels: of the input and the output.
        scale: of what the branches add.
        activated: whether a ReLU follows.
    """

    def __init__(
        self,
        *branches: nn.Module | tuple[nn.Module, ...],
        width: int,
        channels: int,
        scale: float,
        activated: bool = True,
    ) -> None:
        super().__init__()
        # Not a `Branches`: published names have branch0 and conv2d beside each other.
        self.branches = len(branches)
        for number, branch in enumerate(branches):
            self.add_module(
                f"branch{number}", nn.Sequential(*branch) if isinstance(branch, tuple) else branch
            )
        self.conv2d = nn.Conv2d(width, channels, 1)
        self.scale = scale
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] → the same."""
        seen = [self.get_submodule(f"branch{number}")(x) for number in range(self.branches)]
        out: Tensor = x + self.scale * self.conv2d(torch.cat(seen, dim=1))
        return F.relu(out) if self.activated else out


def mean3x3() -> nn.AvgPool2d:
    """A padded 3x3 mean that leaves the padding out, as TensorFlow's does."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
