"""Pooling to a fixed grid against PyTorch's adaptive pooling."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

from training.models.fixed_grid import fixed_grid, windows


@pytest.mark.parametrize(("height", "width"), [(13, 13), (6, 6), (1, 1), (2, 7), (25, 6)])
def test_it_is_adaptive_pooling(height: int, width: int) -> None:
    maps = torch.randn(2, 3, height, width)
    assert torch.equal(fixed_grid(maps, 6, torch.amax), F.adaptive_max_pool2d(maps, 6))
    assert torch.allclose(fixed_grid(maps, 6, torch.mean), F.adaptive_avg_pool2d(maps, 6), atol=1e-6)


def test_maps_of_that_size_are_left_alone() -> None:
    maps = torch.randn(2, 3, 6, 6)
    assert fixed_grid(maps, 6, torch.amax) is maps


@pytest.mark.parametrize(("size", "cells"), [(1, 6), (5, 6), (6, 6), (7, 6), (20, 6)])
def test_every_pixel_is_in_a_window_and_none_is_empty(size: int, cells: int) -> None:
    found = windows(size, cells)
    assert len(found) == cells
    assert all(0 <= window.start < window.stop <= size for window in found)
    assert {pixel for window in found for pixel in range(window.start, window.stop)} == set(range(size))
