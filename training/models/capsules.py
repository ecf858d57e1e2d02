"""Capsules: vectors whose length is a probability (Sabour, Frosst & Hinton 2017, arXiv:1710.09829).

Computed in float32 under autocast too, but for the votes' products: agreements add up.
"""

import math

import torch
from torch import Tensor, nn

from training.models.fixed_grid import fixed_grid

# Of squared lengths: far below any that means something, and the root of zero gets a finite gradient.
_EPSILON = 1e-12


def squash(vectors: Tensor) -> Tensor:
    """Keep the direction, bring the length l to l² / (1 + l²) (equation 1): float [..., dimension]."""
    squared = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * ((squared + _EPSILON).sqrt() / (1 + squared))


def lengths(vectors: Tensor) -> Tensor:
    """Float [..., dimension] → float [...]."""
    return (vectors.square().sum(dim=-1) + _EPSILON).sqrt()


def route(votes: Tensor, iterations: int) -> Tensor:
    """Routing by agreement (procedure 1): a capsule goes where its vote agrees with the others.

    Args:
        votes: float [batch, above, below, dimension]: what each capsule of the layer below says that each
            one of the layer above should be.
        iterations: at least 1; with 1 all votes count alike.

    Returns:
        The capsules above, float [batch, above, dimension].
    """
    agreements = torch.zeros_like(votes[..., 0])
    for _ in range(iterations - 1):
        capsules = _combined(votes, agreements)
        agreements = agreements + (votes * capsules[:, :, None]).sum(dim=-1)
    return _combined(votes, agreements)


def _combined(votes: Tensor, agreements: Tensor) -> Tensor:
    # Each capsule below shares itself out among those above (equations 2 and 3).
    shares = agreements.softmax(dim=1)
    return squash((shares[..., None] * votes).sum(dim=2))


class ClassCapsules(nn.Module):
    """Primary capsules, and from them by routing one capsule for each class ("DigitCaps").

    Args:
        types: of primary capsules; each has one in every place of a grid, with weights of its own there.
        classes: capsules that come out.
        grid: side of the grid; maps of another size are averaged to it.
        primary_dimension: of a primary capsule.
        dimension: of a class's capsule.
        iterations: of the routing.
    """

    def __init__(
        self,
        types: int,
        classes: int,
        *,
        grid: int = 6,
        primary_dimension: int = 8,
        dimension: int = 16,
        iterations: int = 3,
    ) -> None:
        super().__init__()
        self.types, self.grid, self.iterations = types, grid, iterations
        below = types * grid**2
        self.weight = nn.Parameter(torch.empty(classes, below, dimension, primary_dimension))
        # Of votes that don't agree yet, shared out evenly, the sum then has a length near 1: squashed to one
        # half, where the gradient is steep. Of many classes it stays shorter, else the votes themselves would
        # be so long that routing decides before anything is learned.
        nn.init.normal_(self.weight, std=min(classes, 10) / math.sqrt(below * dimension))

    def forward(self, maps: Tensor) -> Tensor:
        """Float [batch, types × primary_dimension, h, w] → float32 [batch, classes × dimension]."""
        cells = fixed_grid(maps.float(), self.grid, torch.mean)
        vectors = (
            cells.reshape(-1, self.types, self.weight.shape[3], self.grid**2).transpose(2, 3).flatten(1, 2)
        )
        votes = torch.einsum("bie,jide->bjid", squash(vectors), self.weight)
        return route(votes.float(), self.iterations).flatten(1)
