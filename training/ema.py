"""A running average of a network's weights, which is steadier than the last ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from training.models import Classifier


class AveragedWeights:
    """An exponential moving average (Polyak & Juditsky 1992; Tan & Le 2019, arXiv:1905.11946, section 5).

    Batch normalisation's statistics are averaged as the weights are. The first steps count for more: the
    decay is at most (1 + steps) / (10 + steps), else a short run would keep what it started from.

    Args:
        model: whose weights are averaged.
        decay: the share of the average that a step keeps, once there were many.

    Attributes:
        model: the network with the averaged weights.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def model(self) -> Classifier:
        """The network with the averaged weights."""
        model = self._averaged.module
        assert isinstance(model, Classifier)  # noqa: S101 - for the type checker; it was given one
        return model

    @property
    def steps(self) -> int:
        """How many times the weights were taken in."""
        return int(self._averaged.n_averaged)

    def update(self, model: Classifier) -> None:
        """Take the weights in, after a step."""
        self._averaged.update_parameters(model)

    def restore(self, weights: dict[str, Tensor], steps: int) -> None:
        """Go on from `model.state_dict()` and `steps` of a checkpoint."""
        self.model.load_state_dict(weights)
        self._averaged.n_averaged.fill_(steps)

    @torch.no_grad()
    def _blend(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _steps: Tensor | int) -> None:
        # The argument may lie on a GPU, which would have to be waited for.
        share = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(list(averaged), list(current), share)
            return
        for mine, other in zip(averaged, current, strict=True):  # batch normalisation's counts
            mine.copy_(other)
