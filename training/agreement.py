"""How far two sets of outputs for the same images agree, and how far is far enough for each precision."""

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.runtime import Outputs

_TINY = float(np.finfo(np.float32).tiny)
# Of the difference of two shares.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Agreement:
    """Of one way to compute a network with a reference.

    Attributes:
        images: how many were compared.
        top1_agreement: share of images with the same highest logit; None where there are no classes.
        max_relative_error: max|Δlogits| ÷ max|reference logits|; of embeddings where there are no logits.
        embedding_cosine: mean over the images.
        top1_accuracy: share of images with the right label; None where labels aren't known.
        reference_top1_accuracy: the reference's on the same images; None likewise.
        decision_agreement: of classes that may hold together, as `_decision_agreement`; None of others.
    """

    images: int
    top1_agreement: float | None
    max_relative_error: float
    embedding_cosine: float
    top1_accuracy: float | None = None
    reference_top1_accuracy: float | None = None
    decision_agreement: float | None = None

    def __str__(self) -> str:
        text = ""
        if self.decision_agreement is not None:
            text = f"same labels {self.decision_agreement:.2%}, "
        elif self.top1_agreement is not None:
            text = f"same top-1 {self.top1_agreement:.2%}, "
        text += (
            f"embedding cosine {self.embedding_cosine:.6f}, max|Δ| ÷ max|reference| "
            f"{self.max_relative_error:.2g}"
        )
        if self.top1_accuracy is not None and self.reference_top1_accuracy is not None:
            text += f", accuracy {self.top1_accuracy:.2%} (fp32 {self.reference_top1_accuracy:.2%})"
        return f"{text}, on {self.images:,} image{'s' * (self.images != 1)}"

    def worse(self, other: "Agreement") -> "Agreement":
        """Of two measurements with the same reference, on the same images: the worse of each number."""
        accuracies = [each.top1_accuracy for each in (self, other) if each.top1_accuracy is not None]
        return replace(
            self,
            top1_agreement=_least_of(self.top1_agreement, other.top1_agreement),
            # What isn't a number is the worst.
            max_relative_error=-_least(-self.max_relative_error, -other.max_relative_error),
            embedding_cosine=_least(self.embedding_cosine, other.embedding_cosine),
            top1_accuracy=min(accuracies, default=None),
            decision_agreement=_least_of(self.decision_agreement, other.decision_agreement),
        )

    def recorded(self) -> dict[str, float]:
        """What the manifest keeps: all that is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def agreement(
    reference: Outputs,
    outputs: Outputs,
    labels: NDArray[np.int64] | None = None,
    *,
    multi_label: bool = False,
) -> Agreement:
    """Compare logits and embeddings for the same images.

    Args:
        reference: logits [images, classes] and unit-length or zero embeddings [images, dimension]; of a
            model without classes the logits are [images, 0].
        outputs: likewise.
        labels: int64 [images], indices of the classes; None where they aren't known.
        multi_label: whether classes may hold together, so that each is decided by itself.
    """
    (expected, expected_embeddings), (logits, embeddings) = reference, outputs
    cosine = _mean_cosine(embeddings, expected_embeddings)
    if expected.shape[1] == 0:
        return Agreement(len(expected), None, _relative_error(embeddings, expected_embeddings), cosine)
    known = labels is not None
    same_top1 = float(np.mean(logits.argmax(1) == expected.argmax(1)))
    return Agreement(
        images=len(expected),
        top1_agreement=same_top1,
        max_relative_error=_relative_error(logits, expected),
        embedding_cosine=cosine,
        top1_accuracy=float(np.mean(logits.argmax(1) == labels)) if known else None,
        reference_top1_accuracy=float(np.mean(expected.argmax(1) == labels)) if known else None,
        decision_agreement=_decision_agreement(logits, expected, same_top1) if multi_label else None,
    )


@dataclass(frozen=True)
class Gate:
    """What a variant must keep to be published.

    Attributes:
        top1_agreement: the least, with the float32 variant; of a multi-label model the least
            `decision_agreement`, for which class is the surest of those that hold decides nothing there.
        embedding_cosine: the least mean, with the float32 variant's.
        images: the fewest that can tell such shares apart; not a limit of the service's.
    """

    top1_agreement: float
    embedding_cosine: float
    images: int

    def failures(self, measured: Agreement) -> list[str]:
        """What isn't kept, in words with the numbers; empty where all is."""
        failed = []
        what, share = "same top-1", measured.top1_agreement
        if measured.decision_agreement is not None:
            what, share = "same labels", measured.decision_agreement
        # Written so that nan fails.
        if share is not None and not share >= self.top1_agreement:
            failed.append(f"{what} {share:.2%}, expected {self.top1_agreement:.1%}")
        if not measured.embedding_cosine >= self.embedding_cosine:
            failed.append(
                f"embedding cosine {measured.embedding_cosine:.6f}, expected {self.embedding_cosine}"
            )
        if not np.isfinite(measured.max_relative_error):
            failed.append("some outputs aren't numbers")
        if measured.top1_accuracy is not None and measured.reference_top1_accuracy is not None:
            lost = measured.reference_top1_accuracy - measured.top1_accuracy
            if not lost <= MAX_ACCURACY_LOSS + _ROUNDING:
                failed.append(f"{lost:.2%} of top-1 accuracy lost, expected at most {MAX_ACCURACY_LOSS:.1%}")
        return failed


# The service holds a package to the same limits, in service/agreement.py; a test keeps them equal.
GATES = {
    "fp16": Gate(0.999, 0.9999, images=1000),
    "bf16": Gate(0.99, 0.999, images=200),
    "int8": Gate(0.98, 0.98, images=200),
}
# Of top-1 accuracy, as a share: half a percentage point.
MAX_ACCURACY_LOSS = 0.005


def _least(left: float, right: float) -> float:
    """The smaller one; nan where either is."""
    return float(np.minimum(left, right))


def _least_of(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else _least(left, right)


def _decision_agreement(
    logits: NDArray[np.float32], expected: NDArray[np.float32], undecided: float
) -> float:
    """Do both give the same labels, each class being given where its probability is at least 0.5?

    2 × the labels that both give ÷ (the labels that one gives + those that the other gives), over all images
    (Dice 1945); `undecided` where neither gives any. Labels that both leave out don't count: of many classes
    nearly all are, and would hide any difference. With one label an image it is the share of images that keep
    theirs.
    """
    given, wanted = logits >= 0, expected >= 0
    both, either = int((given & wanted).sum()), int(given.sum()) + int(wanted.sum())
    return 2 * both / either if either else undecided


def _relative_error(values: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    # Infinite values give nan here, which fails every gate.
    with np.errstate(invalid="ignore"):
        return float(np.abs(values - expected).max() / max(np.abs(expected).max(), _TINY))


def _mean_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Of unit-length or zero rows; two zero rows agree."""
    cosines = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    return float(np.where(both_zero, 1.0, cosines).mean())
