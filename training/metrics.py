"""Scores, gathered batch by batch."""

from torch import Tensor

from training.scores import MIN_CLASSES_OF_TOP5


class Tally:
    """Mean loss and top-k accuracy over what was added.

    Args:
        top_k: the k of each accuracy wanted.
    """

    def __init__(self, top_k: tuple[int, ...] = (1, 5)) -> None:
        self._correct = dict.fromkeys(top_k, 0)
        self._loss_sum = 0.0
        self._classes = 0
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
        self._classes = logits.shape[1]
        self.images += len(labels)

    def include(self, other: "Tally") -> None:
        """Count what another one of the same k has counted."""
        for k, correct in other._correct.items():
            self._correct[k] += correct
        self._loss_sum += other._loss_sum
        self._classes = max(self._classes, other._classes)
        self.images += other.images

    @property
    def loss(self) -> float:
        """Mean over the images; nan before the first."""
        return self._loss_sum / self.images if self.images else float("nan")

    def accuracy(self, k: int = 1) -> float:
        """Share of images whose class is among the k highest logits; nan before the first."""
        return self._correct[k] / self.images if self.images else float("nan")

    def scores(self) -> dict[str, float]:
        """Loss and accuracy, as a run records them; of classes that five can miss also `top5_accuracy`."""
        found = {"loss": self.loss, "accuracy": self.accuracy()}
        return found | ({"top5_accuracy": self.accuracy(5)} if self._classes >= MIN_CLASSES_OF_TOP5 else {})
