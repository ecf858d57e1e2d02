"""Does the packaged graph, as the service runs it, give what the foreign model gives by itself?"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from service.agreement import Agreement
from service.session import ModelSession


@dataclass(frozen=True)
class Tolerance:
    """How far from what the model gives by itself is near enough.

    Attributes:
        max_relative_error: the most of max|Δ| ÷ max|expected|.
        min_embedding_cosine: the least mean.
    """

    max_relative_error: float
    min_embedding_cosine: float


# By what the model computes in by itself. fp32: as the export's gates are. Else ONNX Runtime leaves out
# roundings as neighbours allow, and one to eight bits may fall on its other side.
TOLERANCES = {
    "fp32": Tolerance(1e-4, 0.9999),
    "fp16": Tolerance(1e-2, 0.9999),
    "bf16": Tolerance(5e-2, 0.999),
    "int8": Tolerance(5e-2, 0.999),
}
# One picture alone, and a size that is no power of two.
BATCH_SIZES = (1, 3)
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Expected:
    """What the foreign model gives for some pictures.

    Attributes:
        logits: [pictures, classes]; [pictures, 0] where there are no classes.
        embedding: [pictures, dimension], unit length.
        activation: "Softmax" or "Sigmoid", where the package leaves it out; else empty.
        probabilities: [pictures, classes], what the activation gives; [pictures, 0] without one.
        tolerance: how far from it is near enough.
    """

    logits: NDArray[np.float64]
    embedding: NDArray[np.float64]
    activation: str
    probabilities: NDArray[np.float64]
    tolerance: Tolerance


@dataclass(frozen=True)
class Comparison:
    """How near the packaged graph comes; errors are max|Δ| ÷ max|expected|.

    Attributes:
        pictures: how many were compared.
        same_top1: share of them with the same highest logit; None where there are no classes.
        logits_error, probabilities_error: 0 where there are none.
        embedding_error: of the unit-length vectors.
        embedding_cosine: mean over the pictures.
        tolerance: what is near enough.
    """

    pictures: int
    same_top1: float | None
    logits_error: float
    probabilities_error: float
    embedding_error: float
    embedding_cosine: float
    tolerance: Tolerance

    @property
    def agreement(self) -> Agreement:
        """What the manifest records."""
        error = self.embedding_error if self.same_top1 is None else self.logits_error
        return Agreement(self.pictures, self.same_top1, error, min(self.embedding_cosine, 1.0))

    @property
    def good(self) -> bool:
        """Whether it is near enough; written so that nan isn't."""
        errors = (self.logits_error, self.probabilities_error, self.embedding_error)
        return (
            all(error <= self.tolerance.max_relative_error for error in errors)
            and self.embedding_cosine >= self.tolerance.min_embedding_cosine
            and self.same_top1 in (None, 1.0)
        )

    def worse(self, other: "Comparison") -> "Comparison":
        """The worse of each number; what isn't a number is the worst."""

        def largest(left: float, right: float) -> float:
            return float(np.maximum(left, right))

        return Comparison(
            self.pictures,
            None
            if self.same_top1 is None or other.same_top1 is None
            else -largest(-self.same_top1, -other.same_top1),
            largest(self.logits_error, other.logits_error),
            largest(self.probabilities_error, other.probabilities_error),
            largest(self.embedding_error, other.embedding_error),
            -largest(-self.embedding_cosine, -other.embedding_cosine),
            self.tolerance,
        )

    def __str__(self) -> str:
        of_classes = (
            ""
            if self.same_top1 is None
            else f"logits {self.logits_error:.2g}, same top-1 {self.same_top1:.2%}, "
        )
        return (
            f"max|Δ| ÷ max|reference| (at most {self.tolerance.max_relative_error:.0e}): {of_classes}"
            f"embeddings {self.embedding_error:.2g}, cosine {self.embedding_cosine:.6f}, on {self.pictures} "
            f"pictures in batches of {' and '.join(map(str, BATCH_SIZES))}"
        )


def compare(expected: Expected, session: ModelSession, pictures: NDArray[np.uint8]) -> Comparison:
    """Run the pictures in batches of each of `BATCH_SIZES`; the worst of each number.

    Raises:
        InferenceFailed: a run fails.
    """
    return reduce(Comparison.worse, (_compare(expected, session, pictures, size) for size in BATCH_SIZES))


def _compare(expected: Expected, session: ModelSession, pictures: NDArray[np.uint8], size: int) -> Comparison:
    runs = [session.run(pictures[start : start + size]) for start in range(0, len(pictures), size)]
    logits = np.concatenate([run.logits for run in runs]).astype(np.float64)
    embedding = np.concatenate([run.embedding for run in runs]).astype(np.float64)
    embedding_error = _relative_error(embedding, expected.embedding)
    cosines = np.einsum("nd,nd->n", embedding, expected.embedding)
    # Two zero vectors agree.
    both_zero = ~embedding.any(axis=1) & ~expected.embedding.any(axis=1)
    cosine = float(np.where(both_zero, 1.0, cosines).mean())
    if expected.logits.shape[1] == 0:
        return Comparison(len(pictures), None, 0.0, 0.0, embedding_error, cosine, expected.tolerance)
    probabilities_error = 0.0
    if expected.activation:
        probabilities_error = _relative_error(
            probabilities_of(logits, expected.activation), expected.probabilities
        )
    return Comparison(
        len(pictures),
        _same_top1(logits, expected),
        _relative_error(logits, expected.logits),
        probabilities_error,
        embedding_error,
        cosine,
        expected.tolerance,
    )


def _same_top1(logits: NDArray[np.float64], expected: Expected) -> float:
    """The share; of two logits that differ by less than the error allowed either may be the higher one."""
    chosen = np.take_along_axis(expected.logits, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    margin = expected.tolerance.max_relative_error * np.abs(expected.logits).max()
    return float((chosen >= expected.logits.max(axis=1) - margin).mean())


def _relative_error(values: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.abs(values - expected).max() / max(np.abs(expected).max(), _TINY))


def probabilities_of(logits: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    """What "Softmax" or "Sigmoid" makes of logits [pictures, classes]."""
    if activation == "Sigmoid":
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities
