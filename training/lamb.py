"""LAMB: Adam whose step in each layer is as long, in proportion, as the layer's weights."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """You et al. 2019 (arXiv:1904.00962), algorithm 2, with bias correction.

    Groups without weight decay (biases, normalisation) take Adam's step as it is: the length of such a
    vector, zero at the start, says nothing about how far it should move.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: shares of the running means of gradients and of their squares that are kept.
        eps: added to the square root.
        weight_decay: decoupled, part of the step whose length is set.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"lr = {lr}, betas = {betas}, eps = {eps}, weight_decay = {weight_decay}; expected none "
                "below 0, eps above 0, betas below 1"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure`, if given, computes the loss and the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "mean": torch.zeros_like(parameter),
                    "square": torch.zeros_like(parameter),
                }
        group["steps"] = group.get("steps", 0) + 1
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]
        means = [self.state[parameter]["mean"] for parameter in parameters]
        squares = [self.state[parameter]["square"] for parameter in parameters]
        first, second = group["betas"]
        # All tensors of the group in a few kernels: a loop over them would be hundreds on a GPU.
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        denominators = torch._foreach_div(squares, 1 - second ** group["steps"])
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["eps"])
        steps = list(torch._foreach_div(means, 1 - first ** group["steps"]))
        torch._foreach_div_(steps, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(steps, parameters, alpha=group["weight_decay"])
            lengths = torch._foreach_norm(parameters)
            torch._foreach_mul_(
                steps,
                [
                    # Where either is zero the step keeps its length.
                    torch.where((own > 0) & (other > 0), own / other, torch.ones_like(own))
                    for own, other in zip(lengths, torch._foreach_norm(steps), strict=True)
                ],
            )
        torch._foreach_add_(parameters, steps, alpha=-group["lr"])
