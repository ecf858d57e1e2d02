"""Scores, gathered batch by batch."""

from torch import Tensor


class Tally:
    """Mean loss and top-k accuracy over what was added.

    Args:
        top_k: the k of each accuracy wanted.
    """

    def __init__(self, top_k: tuple[int, ...] = (1, 5)) -> None:
        self._correct = dict.fromkeys(top_k, 0)
        self._loss_sum = 0.0
        self.images = 0

    def add(self, logits: Tensor, labels: Tensor, loss: float) -> None:
        """Count one batch.

        Args:
            logits: float [batch, classes].
            labels: int64 [batch].
            loss: mean over the batch.
        """
        largest = min(max(self._correct), logits.shape[1])
        hits = logits.detach().topk(largest, dim=1).indices == labels[:, None]
        for k in self._correct:
            self._correct[k] += int(hits[:, :k].sum())
        self._loss_sum += loss * len(labels)
        self.images += len(labels)

    def include(self, other: "Tally") -> None:
        """Count what another one of the same k has counted."""
        for k, correct in other._correct.items():
            self._correct[k] += correct
        self._loss_sum += other._loss_sum
        self.images += other.images

    @property
    def loss(self) -> float:
        """Mean over the images; nan before the first."""
        return self._loss_sum / self.images if self.images else float("nan")

    def accuracy(self, k: int = 1) -> float:
        """Share of images whose class is among the k highest logits; nan before the first."""
        return self._correct[k] / self.images if self.images else float("nan")
