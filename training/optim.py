"""Stochastic gradient descent, and its learning rate over time."""

import math
from collections.abc import Callable

from torch import nn, optim


def sgd(model: nn.Module, learning_rate: float, weight_decay: float, momentum: float = 0.9) -> optim.SGD:
    """SGD with Nesterov momentum; biases and batch normalisation are not decayed.

    Args:
        model: whose parameters are trained.
        learning_rate: the highest of the schedule.
        weight_decay: L2 penalty on the weights.
        momentum: share of the last step that is kept.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    free = [parameter for parameter in parameters if parameter.ndim <= 1]
    return optim.SGD(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}],
        lr=learning_rate,
        momentum=momentum,
        nesterov=momentum > 0,
    )


def cosine(total_steps: int, warmup_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2016, arXiv:1608.03983).

    Returns:
        Step from 0 → share of the highest learning rate, above 0 and at most 1.
    """

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return share


def schedule(optimizer: optim.Optimizer, total_steps: int, warmup_steps: int) -> optim.lr_scheduler.LambdaLR:
    """`cosine` for an optimizer; step it after each batch."""
    return optim.lr_scheduler.LambdaLR(optimizer, cosine(total_steps, warmup_steps))
