"""Logistic regression on a frozen network's features: the weight decay chosen on val, solved to the end.

Linear probing as Radford et al. 2021 (arXiv:2103.00020, appendix A.3) do it: full-batch L-BFGS, the L2
penalty from a logarithmic sweep scored on the validation split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from training.errors import TrainingDiverged
from training.metrics import Tally
from training.scores import mean_average_precision

# Half powers of ten, from what hardly lets a weight grow to what hardly holds it back.
WEIGHT_DECAYS = tuple(10.0 ** (power / 2) for power in range(2, -13, -1))
_MAX_STEPS = 500
# Two powers of ten that were worse: what is weaker still takes the most steps and overfits the most.
_TRIALS_WITHOUT_GAIN = 4
# Of the mean loss, by any one weight.
_GRADIENT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trial:
    """One weight decay of the sweep.

    Attributes:
        weight_decay: as tried.
        train_loss: mean, without the penalty.
        val_loss: mean.
        val_score: accuracy; with several labels an image mean average precision.
        steps: of L-BFGS.
    """

    weight_decay: float
    train_loss: float
    val_loss: float
    val_score: float
    steps: int


@dataclass(frozen=True, eq=False)
class Probe:
    """The best head of a sweep.

    Attributes:
        weight: float32 [classes, width].
        bias: float32 [classes].
        best: the trial that these come from.
        trials: all, in the order tried.
    """

    weight: Tensor
    bias: Tensor
    best: Trial
    trials: tuple[Trial, ...]


def fit_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: int,
    *,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    class_weights: Tensor | None = None,
) -> Probe:
    """Fit a head for every weight decay, and keep the one that is best on val.

    The loss is the mean softmax cross-entropy plus weight decay ÷ 2 · |weights|²; with several labels an
    image the mean binary one. Features are standardised by the training split's mean and deviation first,
    so that one penalty suits all of them; the head that comes out takes them as they are.

    Args:
        train: features float32 [images, width], and labels int64 [images] or float32 [images, classes].
        val: likewise; of equal scores the lower loss wins.
        classes: of the head.
        weight_decays: tried from the largest to the smallest, each from where the last one ended, until
            four in a row were no better.
        class_weights: float32 [classes]; how much an image of each class counts, or, with several labels
            an image, a class's positives.

    Raises:
        TrainingDiverged: a feature is no number.
    """
    features, labels = train
    for split in (features, val[0]):
        if not torch.isfinite(split).all():
            raise TrainingDiverged(
                "the backbone gives features that aren't numbers; expected finite ones: its weights, or the "
                "normalisation, aren't what they should be"
            )
    center = features.double().mean(dim=0)
    # A feature that never varies keeps its weight of zero, whatever it is divided by.
    spread = features.double().std(dim=0, correction=0)
    spread = torch.where(spread > 1e-12 * spread.max(), spread, torch.ones_like(spread))
    standard = ((features.double() - center) / spread).float()
    standard_val = ((val[0].double() - center) / spread).float()
    weights = None if class_weights is None else class_weights.to(features.device)

    parameters = torch.zeros(classes, features.shape[1] + 1, device=features.device)
    trials: list[Trial] = []
    kept: dict[float, Tensor] = {}
    for weight_decay in sorted(weight_decays, reverse=True):
        steps = _solve(parameters, standard, labels, weight_decay, weights)
        found = scores(_logits(parameters, standard_val), val[1])
        trials.append(
            Trial(
                weight_decay,
                train_loss=float(_loss(_logits(parameters, standard), labels, None)),
                val_loss=found["loss"],
                val_score=found.get("accuracy", found.get("mean_average_precision", 0.0)),
                steps=steps,
            )
        )
        kept[weight_decay] = parameters.clone()
        best = max(trials, key=_rank)
        if len(trials) - trials.index(best) > _TRIALS_WITHOUT_GAIN:
            break
    chosen = kept[best.weight_decay].double()
    weight = chosen[:, :-1] / spread
    bias = chosen[:, -1] - weight @ center
    return Probe(weight.float(), bias.float(), best, tuple(trials))


def _rank(trial: Trial) -> tuple[float, float]:
    return trial.val_score, -trial.val_loss


def _solve(
    parameters: Tensor, features: Tensor, labels: Tensor, weight_decay: float, class_weights: Tensor | None
) -> int:
    """Change `parameters` ([classes, width + 1], the bias last) in place; returns the steps taken."""
    parameters.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [parameters],
        max_iter=_MAX_STEPS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _loss(_logits(parameters, features), labels, class_weights)
        loss = loss + weight_decay / 2 * parameters[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]  # likewise
    parameters.requires_grad_(False)
    return int(solver.state[parameters]["n_iter"])


def _logits(parameters: Tensor, features: Tensor) -> Tensor:
    return F.linear(features, parameters[:, :-1], parameters[:, -1])


def _loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=class_weights)
    return F.cross_entropy(logits, labels, weight=class_weights)


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """As `objective` names them: loss, with accuracies or, with several labels an image, average precision.

    Args:
        logits: float [images, classes].
        labels: int64 [images], or float32 [images, classes].
    """
    loss = float(_loss(logits, labels, None))
    if not labels.is_floating_point():
        tally = Tally()
        tally.add(logits, labels, loss)
        return tally.scores()
    found = mean_average_precision(logits.cpu().numpy(), labels.cpu().numpy().astype(np.uint8))
    return {"loss": loss} | ({} if math.isnan(found) else {"mean_average_precision": found})
