"""Logits → log-probabilities, a block of rows at a time, so that no second matrix of their size is made."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 22


def blocks(logits: NDArray[np.float32]) -> Iterator[slice]:
    """Slices over the rows of [images, classes], a few million values each."""
    rows = max(1, _BLOCK_VALUES // max(1, logits.shape[1]))
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def log_softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Log-probabilities of classes that exclude each other, float64 [images, classes].

    Args:
        logits: float32 [images, classes], divided by `temperature` first.
        temperature: above 0.
    """
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    normalized: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return normalized


def sigmoid(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of classes that may hold together, float64 [images, classes]; as `log_softmax`."""
    scaled = logits.astype(np.float64) / temperature
    # exp of what is never above 0 can't overflow.
    small = np.exp(-np.abs(scaled))
    return np.where(scaled >= 0, 1.0, small) / (1.0 + small)


def reaching(logits: NDArray[np.float32], threshold: float, temperature: float = 1.0) -> NDArray[np.bool_]:
    """Where the probability of a class that may hold with others is at least `threshold`.

    Returns:
        bool [images, classes].
    """
    reached = np.empty(logits.shape, np.bool_)
    for rows in blocks(logits):
        reached[rows] = sigmoid(logits[rows], temperature) >= threshold
    return reached


def nll(logits: NDArray[np.float32], targets: NDArray[np.integer], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the truth, in nats.

    Args:
        logits: float32 [images, classes].
        targets: int64 [images], indices of classes; or 0 and 1 [images, classes], where the mean is over
            the classes too (binary cross-entropy of sigmoids).
        temperature: logits are divided by it.

    Returns:
        nan where there are no images.
    """
    if not len(logits):
        return float("nan")
    total = 0.0
    for rows in blocks(logits):
        total += float(_losses(logits[rows], targets[rows], temperature).sum())
    return total / targets.size


def _losses(
    logits: NDArray[np.float32], targets: NDArray[np.integer], temperature: float
) -> NDArray[np.float64]:
    if targets.ndim == 1:
        losses: NDArray[np.float64] = -log_softmax(logits, temperature)[np.arange(len(targets)), targets]
        return losses
    scaled = logits.astype(np.float64) / temperature
    return np.maximum(scaled, 0) - scaled * targets + np.log1p(np.exp(-np.abs(scaled)))
