"""Logits → the best classes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Beyond these, sorting a whole row is quicker than to look for its best one again and again.
_MOST_LOOKS = 64
_LEAST_CLASSES_A_LOOK = 32


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
        logits: float32 [batch, classes], finite; a row that isn't gets a ranking without meaning, and NumPy
            may warn of it.
        task: "single_label" (softmax) or "multi_label" (a sigmoid each).
        temperature: logits are divided by it first (Guo et al. 2017, On Calibration of Modern
            Neural Networks).
        k: more than the classes gives all of them.
    """
    k = min(k, logits.shape[1])
    best, lines = _best(logits, k), np.arange(len(logits))[:, None]
    if task == "multi_label":
        wide = logits[lines, best].astype(np.float64)
        probabilities = 1 / (1 + np.exp(-np.clip(wide / temperature, -700, 700)))
    else:
        exponents = np.subtract(logits, logits[lines, best[:, :1]], dtype=np.float64)
        exponents /= temperature
        np.exp(exponents, out=exponents)
        probabilities = exponents[lines, best] / exponents.sum(axis=1, keepdims=True)
    return Ranking(best.tolist(), probabilities.tolist())


def _best(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    count, classes = logits.shape
    if k > _MOST_LOOKS or k * _LEAST_CLASSES_A_LOOK > classes:
        return np.argsort(-logits, axis=1, kind="stable")[:, :k]
    rest, lines, best = logits.copy(), np.arange(count), np.empty((count, k), np.intp)
    for place in range(k):
        best[:, place] = nearest = rest.argmax(axis=1)  # of equal ones the first
        rest[lines, nearest] = -np.inf
    return best
