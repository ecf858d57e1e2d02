"""Logits → the best classes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Sorting all of a row is quickest up to about here.
_FEW_CLASSES = 128


class Ranking(NamedTuple):
    """The best classes of a batch's images, best first.

    Attributes:
        indices: [batch][k], each class's place in labels and logits.
        probabilities: [batch][k], 0 to 1.
    """

    indices: list[list[int]]
    probabilities: list[list[float]]


def top_k(logits: NDArray[np.float32], task: str, temperature: float, k: int) -> Ranking:
    """The k most probable classes, best first; of equal ones the lower index comes first.

    Args:
        logits: float32 [batch, classes]; a row that isn't finite gets a ranking without meaning.
        task: "single_label" (softmax) or "multi_label" (a sigmoid each).
        temperature: logits are divided by it first (Guo et al. 2017, On Calibration of Modern
            Neural Networks).
        k: more than the classes gives all of them.
    """
    scaled = logits.astype(np.float64) / temperature
    k = min(k, scaled.shape[1])
    best = _best(scaled, k)
    with np.errstate(all="ignore"):  # of rows that aren't finite
        if task == "multi_label":
            chosen = np.take_along_axis(scaled, best, axis=1)
            probabilities = 1 / (1 + np.exp(-np.clip(chosen, -700, 700)))
        else:
            exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            chosen = np.take_along_axis(exponents, best, axis=1)
            probabilities = chosen / exponents.sum(axis=1, keepdims=True)
    return Ranking(best.tolist(), probabilities.tolist())


def _best(scaled: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    if scaled.shape[1] <= _FEW_CLASSES or k == scaled.shape[1]:
        return np.argsort(-scaled, axis=1, kind="stable")[:, :k]
    best = np.empty((len(scaled), k), np.intp)
    thresholds = np.partition(scaled, -k, axis=1)[:, -k]
    for row, threshold, out in zip(scaled, thresholds, best, strict=True):
        # More than k where values are equal; fewer only where they aren't finite.
        candidates = np.flatnonzero(row >= threshold)
        if len(candidates) < k:
            candidates = np.arange(len(row))
        out[:] = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
    return best
