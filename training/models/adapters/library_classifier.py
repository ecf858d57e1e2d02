"""A network of another library as a `Classifier`: its own arithmetic, but for the head."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import UnknownArchitecture
from training.models.classifier import Classifier, GlobalAverage

# Fewer stages than this are too coarse to freeze one by one.
_LEAST_STAGES = 4


class LibraryClassifier(Classifier):
    """What `timm:` and `torchvision:` have in common.

    The library's last linear layer becomes `fc`, and an identity takes its place in `network`; so
    state dicts here have the library's names behind `network.`, and `from_published` reads its own.

    Args:
        name: as typed, for errors.
        network: the library's.
        head: the dotted name in it of its last layer.
        pooled: what the library does between its trunk's output and that layer.
        feature_channels: of the trunk's output.

    Raises:
        UnknownArchitecture: it doesn't end in a linear layer, so it can't be adapted.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        head: str,
        pooled: Callable[[Tensor], Tensor],
        feature_channels: int,
    ) -> None:
        super().__init__(feature_channels)
        last = network.get_submodule(head) if head else None
        if not isinstance(last, nn.Linear):
            raise UnknownArchitecture(
                f"{name} ends in {type(last).__name__}; expected a linear layer as the head"
            )
        parent, _, attribute = head.rpartition(".")
        setattr(network.get_submodule(parent), attribute, nn.Identity())
        self.network: Any = network  # the libraries' own methods, which no type here describes
        self.published_head = head
        self.fc = last
        self.embedding_dimension = last.in_features
        self.pool = LibraryPool(pooled)
        self.trunk = _stages(network, head)

    def simplify_pool(self, maps: Tensor) -> None:
        """Use a plain mean where, on these feature maps, the library's pooling is nothing else."""
        self.eval()
        with torch.no_grad():
            pooled = self.pool(maps)
        self.train()
        mean = maps.mean(dim=(2, 3))
        if pooled.shape == mean.shape and torch.allclose(pooled, mean, rtol=1e-4, atol=1e-5):
            self.pool = GlobalAverage()

    @property
    def pools_itself(self) -> bool:
        """Whether the library's own pooling is in use, alone or inside another module."""
        return any(isinstance(module, LibraryPool) for module in self.pool.modules())

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The library's names → the names here; names of here stay."""
        if any(name.startswith("network.") for name in state):
            return state
        return {self._own_name(name): value for name, value in state.items()}

    def _own_name(self, name: str) -> str:
        head, _, last = name.rpartition(".")
        return f"fc.{last}" if head == self.published_head else f"network.{name}"


class LibraryPool(nn.Module):
    """A library's own way from its trunk's output to the pooled features.

    Args:
        pooled: the library's; its parameters, if any, are the network's, not this module's.
    """

    def __init__(self, pooled: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pooled = pooled

    def forward(self, trunk_output: Tensor) -> Tensor:
        """What the trunk gives → [batch, embedding_dimension]."""
        return self.pooled(trunk_output)


def as_maps(output: Tensor, channels: int, prefix_tokens: int) -> Tensor:
    """A trunk's output, maps with the channels first or last, or tokens, → [batch, channels, h, w].

    Args:
        output: [batch, channels, h, w], [batch, h, w, channels] or [batch, tokens, channels].
        channels: how many there are.
        prefix_tokens: tokens before those of the picture's patches, which form a square.

    Raises:
        UnknownArchitecture: the output is nothing of that.
    """
    if output.ndim == 4:
        return output if output.shape[1] == channels else output.permute(0, 3, 1, 2)
    if output.ndim == 3:
        tokens = output[:, prefix_tokens:]
        side = round(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(output), channels, side, side)
    raise UnknownArchitecture(
        f"the trunk's output has shape {tuple(output.shape)}; expected feature maps, or tokens of a square"
    )


def _stages(network: nn.Module, head: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The network's children in their order; the largest is opened while there are too few to tell apart.

    Parameters that aren't in a child, such as positions, go to the first of its parent's.
    """
    top = head.partition(".")[0]
    stages = _children(network, "", leave_out=top)
    while len(stages) < _LEAST_STAGES:
        sizes = [_size(network.get_submodule(name)) for name, _ in stages]
        for at in sorted(range(len(stages)), key=sizes.__getitem__, reverse=True):
            inner = _children(network.get_submodule(stages[at][0]), stages[at][0] + ".")
            if inner:
                stages[at : at + 1] = inner
                break
        else:
            break
    return tuple((name, tuple(f"network.{part}" for part in parts)) for name, parts in stages)


def _children(module: nn.Module, prefix: str, leave_out: str = "") -> list[tuple[str, tuple[str, ...]]]:
    names = [name for name, child in module.named_children() if name != leave_out and _size(child)]
    stages: list[tuple[str, tuple[str, ...]]] = [(prefix + name, (prefix + name,)) for name in names]
    loose = tuple(prefix + name for name, _ in module.named_parameters(recurse=False))
    if stages and loose:
        stages[0] = (stages[0][0], stages[0][1] + loose)
    return stages


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
