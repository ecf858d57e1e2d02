"""Logits → the best classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """One class of one image.

    Attributes:
        label: its name.
        index: its place in labels and logits.
        probability: 0 to 1.
    """

    label: str
    index: int
    probability: float


def top_k(
    logits: NDArray[np.float32], labels: tuple[str, ...], task: str, temperature: float, k: int
) -> list[ClassScore]:
    """The k most probable classes, best first; of equal ones the lower index comes first.

    Args:
        logits: float32 [classes], finite.
        labels: one per class.
        task: "single_label" (softmax) or "multi_label" (a sigmoid each).
        temperature: logits are divided by it first (Guo et al. 2017, On Calibration of Modern
            Neural Networks).
        k: more than the classes gives all of them.
    """
    scaled = logits.astype(np.float64) / temperature
    if task == "multi_label":
        probabilities = 1 / (1 + np.exp(-np.clip(scaled, -700, 700)))
    else:
        exponents = np.exp(scaled - scaled.max())
        probabilities = exponents / exponents.sum()
    best = np.argsort(-scaled, kind="stable")[:k]
    return [ClassScore(labels[i], int(i), float(probabilities[i])) for i in best]
