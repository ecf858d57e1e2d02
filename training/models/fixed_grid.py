"""Pooling to a grid of fixed size, for layers whose weights belong to places of the picture."""

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor, int], Tensor]
"""Tensor, dimension → the tensor without it, such as `torch.amax`."""


def fixed_grid(maps: Tensor, side: int, reduce: Reduce) -> Tensor:
    """Each cell is what `reduce` makes of its window of the maps; maps of that size stay as they are.

    The windows are those of PyTorch's adaptive pooling: of 13 pixels to 6 they are 3 wide and 2 apart, of
    fewer pixels than cells neighbours share one. Written as slices, which export to ONNX for any size.

    Args:
        maps: [batch, channels, height, width].
        side: of the grid.
        reduce: the maximum or the mean over a dimension.

    Returns:
        [batch, channels, side, side].
    """
    height, width = maps.shape[2:]
    if height != side:
        maps = torch.stack([reduce(maps[:, :, rows], 2) for rows in windows(height, side)], dim=2)
    if width != side:
        maps = torch.stack([reduce(maps[:, :, :, columns], 3) for columns in windows(width, side)], dim=3)
    return maps


def windows(size: int, cells: int) -> list[slice]:
    """The pixels of each cell: together all of them, none empty."""
    return [slice(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]
