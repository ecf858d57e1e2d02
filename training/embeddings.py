"""A split's embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.data import Batches
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
    """The pooled features of every picture, in the order of `batches`; not yet of unit length.

    Leaves the network in evaluation mode.

    Args:
        model: on `device`, like `normalization`.
        normalization: goes before it.
        batches: without augmentation, for embeddings that are those served.
        device: to compute on.
        advance: called after each batch with its number of images.

    Returns:
        Float32 [count, embedding_dimension] and the labels as the batches gave them, both on the CPU.
    """
    model.eval()
    features: list[Tensor] = []
    labels: list[Tensor] = []
    for pixels, targets in batches:
        features.append(model.features(normalization(pixels.to(device, non_blocking=True))).float().cpu())
        labels.append(targets)
        advance(len(targets))
    return torch.cat(features), torch.cat(labels)
