"""Where a network looked: Grad-CAM (Selvaraju et al. 2016, arXiv:1610.02391)."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from numpy.typing import NDArray
from torch import nn

from training.models import Classifier

_BATCH = 16


def gradcam(
    model: Classifier,
    normalization: nn.Module,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    """How much each place of a picture speaks for a class.

    The maps before the pooling, each weighted by the mean gradient of the class's logit in it, added up;
    what speaks against the class counts as nothing.

    Args:
        model: in evaluation mode; its weights get no gradients.
        normalization: what goes before it.
        pixels: uint8 [count, height, width, 3].
        classes: int64 [count], the class to explain in each picture.
        device: where both are.

    Returns:
        Float32 [count, height, width], 0 to 1 in each picture; all 0 where nothing speaks for the class.
    """
    parts = [
        _batch(model, normalization, pixels[start : start + _BATCH], classes[start : start + _BATCH], device)
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty((0, *pixels.shape[1:3]), np.float32)


def _batch(
    model: Classifier,
    normalization: nn.Module,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    with torch.no_grad():
        maps = model.feature_maps(normalization(torch.from_numpy(pixels.copy()).to(device)))
    with torch.enable_grad():
        # A leaf, so that the gradient stops here, whatever lies before.
        maps = maps.detach().float().requires_grad_()
        logits = model.classify(model.pool(maps))
        chosen = logits.gather(1, torch.from_numpy(classes).to(device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, maps)
    with torch.no_grad():
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        heat = F.relu((weights * maps).sum(dim=1, keepdim=True))
        heat = F.interpolate(heat, size=pixels.shape[1:3], mode="bilinear", align_corners=False)
        highest = heat.amax(dim=(1, 2, 3), keepdim=True)
        scaled = torch.where(highest > 0, heat / highest.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
    heatmaps: NDArray[np.float32] = scaled[:, 0].cpu().numpy()
    return heatmaps
