"""How well a variant agrees with the package's fp32 model, as measured at export, and how well it must."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """What `auto` demands of a precision.

    Attributes:
        top1_agreement: the least; of a multi-label model the least decision_agreement.
        embedding_cosine: the least mean.
    """

    top1_agreement: float
    embedding_cosine: float


# training/ holds the same numbers at export, and a test holds the two equal.
GATES = {"fp16": Gate(0.999, 0.9999), "bf16": Gate(0.99, 0.999), "int8": Gate(0.98, 0.98)}
# Of top-1 accuracy, as a share: half a percentage point.
MAX_ACCURACY_LOSS = 0.005
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Agreement:
    """Measured over some images: of the first variant with what it was made from, of others with that.

    Attributes:
        images: how many.
        top1_agreement: share with the same highest logit; None for a model without classes.
        max_relative_error: max|Δlogits| ÷ max|reference logits|; of embeddings where there are no logits.
        embedding_cosine: mean over the images.
        top1_accuracy: share whose label is the highest logit; None where there were no labels.
        reference_top1_accuracy: the same of the reference.
        decision_agreement: of a multi-label model: 2 × the labels that both give (probability at least 0.5) ÷
            (those of the one + those of the other), and top1_agreement where neither gives any; None of
            others, and in older packages.
    """

    images: int
    top1_agreement: float | None
    max_relative_error: float
    embedding_cosine: float
    top1_accuracy: float | None = None
    reference_top1_accuracy: float | None = None
    decision_agreement: float | None = None

    def shortfall(self, precision: str) -> str:
        """What of the precision's gate it fails, with the numbers; empty if nothing, as always for fp32."""
        gate = GATES.get(precision)
        if gate is None:
            return ""
        # Which class is the surest of several that hold decides nothing.
        same = ("top1_agreement", self.top1_agreement)
        if self.decision_agreement is not None:
            same = ("decision_agreement", self.decision_agreement)
        failed = [
            f"{name} {value:.6g} is below {least:g}"
            for name, value, least in (
                (*same, gate.top1_agreement),
                ("embedding_cosine", self.embedding_cosine, gate.embedding_cosine),
            )
            if value is not None and value < least
        ]
        if self.top1_accuracy is not None and self.reference_top1_accuracy is not None:
            lost = self.reference_top1_accuracy - self.top1_accuracy
            if lost > MAX_ACCURACY_LOSS + _ROUNDING:
                failed.append(
                    f"top1_accuracy {self.top1_accuracy:.6g} is more than {MAX_ACCURACY_LOSS:g} below fp32's "
                    f"{self.reference_top1_accuracy:.6g}"
                )
        return ", ".join(failed)
