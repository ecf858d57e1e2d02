"""A split's embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.data import Batches
from training.distributed import gathered
from training.models import Classifier


def _unnoticed(_images: int) -> None:
    """Shows no progress."""


@torch.inference_mode()
def embed(
    model: Classifier,
    normalization: nn.Module,
    batches: Batches,
    device: torch.device,
    advance: Callable[[int], None] = _unnoticed,
) -> tuple[Tensor, Tensor]:
    """The pooled features of every picture, in the order of the split; not yet of unit length.

    Leaves the network in evaluation mode.

    Args:
        model: on `device`, like `normalization`.
        normalization: goes before it.
        batches: without augmentation, for embeddings that are those served; where processes share them, all
            call this and get everything.
        device: to compute on.
        advance: called after each batch with its number of images.

    Returns:
        Float32 [count, embedding_dimension] and the labels as the batches gave them, both on the CPU.
    """
    model.eval()
    found: list[tuple[Tensor, Tensor]] = []
    for pixels, targets in batches:
        features = model.features(normalization(pixels.to(device, non_blocking=True))).float().cpu()
        found.append((features, targets))
        advance(len(targets))
    features, labels = map(torch.cat, zip(*gathered(found, batches.world_size), strict=True))
    return features, labels
