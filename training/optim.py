"""The optimizers by name, and their learning rate over time."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import optim

from training.lamb import Lamb

OPTIMIZERS = ("sgd", "adamw", "lamb")

ParameterGroup = dict[str, Any]
"""As PyTorch's optimizers take them: "params", and what is particular to these."""


def make_optimizer(
    name: str,
    groups: Iterable[ParameterGroup],
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
) -> optim.Optimizer:
    """One of `OPTIMIZERS`; biases, normalisation and other vectors are not decayed.

    SGD has Nesterov momentum; AdamW is Loshchilov & Hutter 2017 (arXiv:1711.05101), LAMB in `lamb.py`.

    Args:
        name: of the optimizer.
        groups: the parameters; a group may have an "lr" of its own. Those that don't learn are left out.
        learning_rate: the highest of the schedule, for groups without their own.
        weight_decay: of weights: L2 penalty of SGD, decoupled decay of the others.
        momentum: of SGD: the share of the last step that is kept.
    """
    divided = [part for group in groups for part in _by_decay(group, weight_decay)]
    if name == "sgd":
        return optim.SGD(divided, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
    if name == "adamw":
        return optim.AdamW(divided, lr=learning_rate)
    if name == "lamb":
        return Lamb(divided, lr=learning_rate)
    raise ValueError(f"the optimizer is {name!r}; expected one of {', '.join(OPTIMIZERS)}")


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
    """`cosine` for an optimizer; step it after each of the optimizer's steps."""
    return optim.lr_scheduler.LambdaLR(optimizer, cosine(total_steps, warmup_steps))


def _by_decay(group: ParameterGroup, weight_decay: float) -> list[ParameterGroup]:
    learning = [parameter for parameter in group["params"] if parameter.requires_grad]
    parts = (
        ([parameter for parameter in learning if parameter.ndim > 1], weight_decay),
        ([parameter for parameter in learning if parameter.ndim <= 1], 0.0),
    )
    return [group | {"params": members, "weight_decay": decay} for members, decay in parts if members]
