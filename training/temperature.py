"""One number that makes the probabilities mean what they say (Guo et al. 2017, arXiv:1706.04599).

Logits are divided by it before softmax or sigmoid; which class is the most probable stays the same.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.probabilities import nll
from training.reliability import BINS, reliability

LOWEST, HIGHEST = 0.05, 20.0
# With fewer, what is gained on them is chance.
MIN_IMAGES = 20


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it does to the images it was fitted on.

    Attributes:
        value: 1 where no other lowers the loss, or where there was nothing to fit it by.
        images: how many it was fitted on.
        bins: of the calibration errors.
        nll_before, nll_after: mean negative log-likelihood in nats, at 1 and at `value`.
        ece_before, ece_after: expected calibration error, likewise.
        reason: why it stayed 1; empty where it was fitted.
    """

    value: float
    images: int
    bins: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    reason: str = ""


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.integer]) -> Temperature:
    """The temperature from `LOWEST` to `HIGHEST` with the least negative log-likelihood.

    Args:
        logits: float32 [images, classes] of images that the weights didn't learn from, and that no score
            is reported on.
        targets: int64 [images]; or 0 and 1 [images, classes] where classes may hold together.

    Raises:
        DataError: some logits aren't finite numbers.
    """
    if not np.isfinite(logits).all():
        raise DataError("some logits aren't finite numbers, so no temperature can be fitted to them")
    reason = _unfit(logits, targets)
    value = 1.0 if reason else _minimum(logits, targets)
    before, after = nll(logits, targets), nll(logits, targets, value)
    if not reason and not after < before:
        value, after, reason = 1.0, before, "no other lowers the loss"
    return Temperature(
        value=value,
        images=len(logits),
        bins=BINS,
        nll_before=before,
        nll_after=after,
        ece_before=reliability(logits, targets).expected_calibration_error,
        ece_after=reliability(logits, targets, value).expected_calibration_error,
        reason=reason,
    )


def _unfit(logits: NDArray[np.float32], targets: NDArray[np.integer]) -> str:
    """Why these can't say how sure to be; empty where they can."""
    if len(logits) < MIN_IMAGES:
        return f"{len(logits)} images are too few to fit it by; at least {MIN_IMAGES} are needed"
    if targets.ndim == 2:
        wrong = int(((logits > 0) != (targets > 0)).sum())
    else:
        wrong = int((logits.argmax(axis=1) != targets).sum())
    if not wrong:
        # The loss then falls all the way to temperature 0, which would be certain of everything.
        return "nothing was wrong, which says nothing about how sure to be"
    return ""


def _minimum(logits: NDArray[np.float32], targets: NDArray[np.integer]) -> float:
    # Needed here only, and slow to import.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        # Convex in 1 ÷ temperature, so with one minimum in its logarithm too.
        lambda log_temperature: nll(logits, targets, math.exp(log_temperature)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(math.exp(found.x))
