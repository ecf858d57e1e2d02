"""Marks what needs torchvision and timm, which need the full build of PyTorch."""

import os

import pytest

needs_full_torch = pytest.mark.skipif(
    os.environ.get("FOVEA_FULL_TORCH") != "1",
    reason="needs torchvision and timm, so the full build of PyTorch; FOVEA_FULL_TORCH=1 says it is there",
)
