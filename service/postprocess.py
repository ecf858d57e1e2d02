"""Logits → the best classes."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Sorting all of a row is quickest up to about here,
_FEW_CLASSES = 128
# and to look for its best class, then the next one, for a few.
_FEW_LOOKS = 10


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
        k: more than the classes gives all of them, 0 none.
    """
    k = min(k, logits.shape[1])
    if not k:
        return Ranking([[]] * len(logits), [[]] * len(logits))
    if len(logits) == 1 and k <= _FEW_LOOKS and task != "multi_label":
        row = logits[0]
        if math.isfinite(row[row.argmax()]):  # and not NaN, which would be the one found
            return _of_one(row, temperature, k)
    best, lines = _best(logits, k), np.arange(len(logits))[:, None]
    with np.errstate(all="ignore"):  # of rows that aren't finite
        if task == "multi_label":
            wide = logits[lines, best].astype(np.float64)
            probabilities = 1 / (1 + np.exp(-np.clip(wide / temperature, -700, 700)))
        else:
            exponents = np.subtract(logits, logits[lines, best[:, :1]], dtype=np.float64)
            exponents /= temperature
            np.exp(exponents, out=exponents)
            probabilities = exponents[lines, best] / exponents.sum(axis=1, keepdims=True)
    return Ranking(best.tolist(), probabilities.tolist())


def _of_one(row: NDArray[np.float32], temperature: float, k: int) -> Ranking:
    """One row's softmax: after a run this code is cold, and numpy's ways for several rows are long."""
    rest, best = row.copy(), []
    for _ in range(k):
        highest = int(rest.argmax())  # of equal ones the first
        best.append(highest)
        rest[highest] = -np.inf
    exponents = np.subtract(row, row[best[0]], dtype=np.float64)
    if temperature != 1:
        with np.errstate(over="ignore"):  # of temperatures near 0
            exponents /= temperature
    np.exp(exponents, out=exponents)
    total = float(np.add.reduce(exponents))
    return Ranking([best], [[exponents.item(index) / total for index in best]])


def _best(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    if logits.shape[1] <= _FEW_CLASSES or k == logits.shape[1]:
        return np.argsort(-logits, axis=1, kind="stable")[:, :k]
    if k <= _FEW_LOOKS:
        return _looked_for(logits, k)
    best, lines = np.argpartition(logits, -k, axis=1)[:, -k:], np.arange(len(logits))[:, None]
    values = logits[lines, best]
    least = values.min(axis=1, keepdims=True)
    best = best[lines, np.lexsort((best, -values), axis=1)]
    # Which of the last ones were taken, where more are equal, is up to chance.
    for row in np.flatnonzero(np.count_nonzero(logits >= least, axis=1) > k):
        candidates = np.flatnonzero(logits[row] >= least[row])
        best[row] = candidates[np.argsort(-logits[row][candidates], kind="stable")[:k]]
    return best


def _looked_for(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    rest, lines = logits.copy(), np.arange(len(logits))
    best = np.empty((len(logits), k), np.intp)
    for place in range(k):
        best[:, place] = highest = rest.argmax(axis=1)  # of equal ones the first
        rest[lines, highest] = -np.inf
    return best
