"""One pass over the data: to learn, or to score."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn, optim

from training.data import Batches
from training.errors import TrainingDiverged
from training.metrics import Tally

Advance = Callable[[int], None]
"""Called after each batch with its number of images."""


def train_one_epoch(
    model: nn.Module,
    normalization: nn.Module,
    batches: Batches,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: optim.Optimizer,
    scheduler: optim.lr_scheduler.LRScheduler,
    device: torch.device,
    advance: Advance,
) -> Tally:
    """Learn from every batch once; the learning rate moves on after each.

    Returns:
        Loss and accuracy on the augmented pictures, as they were while the weights changed.

    Raises:
        TrainingDiverged: the loss is infinite or not a number.
    """
    model.train()
    tally = Tally()
    for pixels, labels in batches:
        pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        logits = model(normalization(pixels))
        loss = loss_function(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            rate = optimizer.param_groups[0]["lr"]
            raise TrainingDiverged(
                f"the loss became {value} in epoch {batches.epoch}, after {tally.images} of its images, at "
                f"learning rate {rate:.3g}; expected a finite number. Try a lower --learning-rate or more "
                "--warmup-epochs"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        optimizer.step()
        scheduler.step()
        tally.add(logits, labels, value)
        advance(len(labels))
    return tally


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    normalization: nn.Module,
    batches: Batches,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> Tally:
    """Score every picture once."""
    model.eval()
    tally = Tally()
    for pixels, labels in batches:
        pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        logits = model(normalization(pixels))
        tally.add(logits, labels, float(loss_function(logits, labels)))
    return tally
