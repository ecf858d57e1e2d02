"""Do the probabilities mean what they say? Reliability in bins, and the expected calibration error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.probabilities import blocks, log_softmax, sigmoid

BINS = 15
"""Of equal width, as in Guo et al. 2017 (arXiv:1706.04599)."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was said against what was so, by what was said.

    Of classes that exclude each other one statement an image counts: the highest probability, which is
    right where that class is the image's. Of classes that may hold together every image and class counts:
    the class's probability, which is right where the image has the class.

    Attributes:
        counts: int64 [bins], statements whose probability p has i < p × bins ≤ i + 1; 0 is in the first.
        confidence: float64 [bins], mean probability of a bin's statements; nan where it has none.
        accuracy: float64 [bins], share of them that is right; nan likewise.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean |accuracy - confidence| over the statements (Naeini et al. 2015); nan where there are none."""
        if not self.counts.sum():
            return float("nan")
        there = self.counts > 0
        gaps = np.abs(self.accuracy[there] - self.confidence[there])
        return float((gaps * self.counts[there]).sum() / self.counts.sum())


def reliability(
    logits: NDArray[np.float32], targets: NDArray[np.integer], temperature: float = 1.0, bins: int = BINS
) -> Reliability:
    """Sort every statement into its bin.

    Args:
        logits: float32 [images, classes].
        targets: int64 [images], or 0 and 1 [images, classes] where classes may hold together.
        temperature: logits are divided by it.
        bins: how many, of equal width.
    """
    counts = np.zeros(bins, np.int64)
    said, right = np.zeros(bins), np.zeros(bins)
    for rows in blocks(logits):
        probabilities, correct = _statements(logits[rows], targets[rows], temperature)
        which = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
        counts += np.bincount(which, minlength=bins)
        said += np.bincount(which, probabilities, minlength=bins)
        right += np.bincount(which, correct, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(counts, said / counts, right / counts)


def _statements(
    logits: NDArray[np.float32], targets: NDArray[np.integer], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if targets.ndim == 2:
        return sigmoid(logits, temperature).ravel(), targets.ravel().astype(np.float64)
    highest = np.exp(log_softmax(logits, temperature).max(axis=1))
    return highest, (logits.argmax(axis=1) == targets).astype(np.float64)
