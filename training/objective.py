"""What training makes small, and what the best checkpoint is chosen by.

Classification is here; what learns distances between embeddings is in `losses.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.data import Batches
from training.distributed import gathered
from training.metrics import Tally
from training.models import Classifier
from training.scores import mean_average_precision


@dataclass(frozen=True)
class Step:
    """What one batch came to.

    Attributes:
        loss: scalar, a mean over the batch.
        logits: float [batch, classes]; None where the objective makes none.
    """

    loss: Tensor
    logits: Tensor | None


class Objective(nn.Module, ABC):
    """A loss, with parameters of its own where it has any, and the scores that go with it.

    Its parameters are trained by the network's optimizer and kept in the checkpoint.

    Attributes:
        selects_by: the key of `validate` by which the best checkpoint is chosen; more is better.
    """

    selects_by: str

    @abstractmethod
    def forward(self, model: Classifier, inputs: Tensor, targets: Tensor) -> Step:
        """The loss of one batch.

        Args:
            model: in training mode.
            inputs: float32 [batch, 3, height, width], normalised.
            targets: int64 [batch], or float32 [batch, classes]: shares of classes (mixup, cutmix) or, where
                images have several labels, which of them.
        """

    @abstractmethod
    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """The scores on a split, without augmentation; "loss" among them where there is one.

        Leaves the network in evaluation mode.

        Args:
            model: the same in all processes.
            normalization: goes before it.
            batches: of the split; where processes share them, they all call this and get the same scores.
            device: to compute on.
        """


Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits [batch, classes], targets → the mean loss, a scalar."""


class Classification(Objective, ABC):
    """A criterion on the logits, and on those of auxiliary heads with their weights."""

    @abstractmethod
    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss that is trained, a scalar."""

    def forward(self, model: Classifier, inputs: Tensor, targets: Tensor) -> Step:
        """As `Objective.forward`; the heads' losses are added up."""
        if not model.auxiliary_weights:
            # Called as a module, so that what is compiled or hooked takes part.
            logits: Tensor = model(inputs)
            return Step(self.criterion(logits, targets), logits)
        logits, *others = model.forward_with_auxiliary(inputs)
        loss = self.criterion(logits, targets)
        for weight, other in zip(model.auxiliary_weights, others, strict=True):
            loss = loss + weight * self.criterion(other, targets)
        return Step(loss, logits)


class CrossEntropy(Classification):
    """Softmax cross-entropy, for one label an image.

    Args:
        class_weights: float32 [classes]: how much an image of each class counts; None counts all alike.
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al. 2015,
            arXiv:1512.00567, section 7). Scores are given without it, and without class weights.
    """

    selects_by = "accuracy"
    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)
        self.label_smoothing = label_smoothing

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of float [batch, classes] logits and int64 [batch] or float [batch, classes] targets."""
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing
        )

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """Loss, accuracy and top-5 accuracy."""
        return accuracies(model, normalization, batches, device, F.cross_entropy)


class BinaryCrossEntropy(Classification):
    """A sigmoid for each class, for any number of labels an image.

    With one label an image the others are plain negatives (Wightman et al. 2021, arXiv:2110.00476,
    section 2).

    Args:
        task: "multi_label" or "single_label".
        class_weights: float32 [classes]; for several labels how much each class's positives count, else
            how much each class's term counts.
        label_smoothing: moves positives and negatives this share of the way to one half, or, with one label
            an image, to an even share of all classes.
        target_threshold: shares of classes above it, of mixed pictures, count in full, others not at all, as
            there and in timm; None takes them as they are. Smoothing comes after it.

    Attributes:
        selects_by: mean average precision where images have several labels, else accuracy.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        task: str,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        target_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.several = task == "multi_label"
        self.selects_by = "mean_average_precision" if self.several else "accuracy"
        self.register_buffer("class_weights", class_weights)
        self.label_smoothing = label_smoothing
        self.target_threshold = target_threshold

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of float [batch, classes] logits and int64 [batch] or float [batch, classes] targets."""
        shares = one_hot(targets, logits.shape[1]).to(logits.dtype)
        if self.target_threshold is not None:
            shares = (shares > self.target_threshold).to(logits.dtype)
        shares = self._smoothed(shares)
        if self.several:
            return F.binary_cross_entropy_with_logits(logits, shares, pos_weight=self.class_weights)
        return F.binary_cross_entropy_with_logits(logits, shares, weight=self.class_weights)

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """Loss with accuracies, or, where images have several labels, with mean average precision."""
        if self.several:
            return average_precisions(model, normalization, batches, device)
        return accuracies(model, normalization, batches, device, _plain_binary)

    def _smoothed(self, shares: Tensor) -> Tensor:
        if not self.label_smoothing:
            return shares
        middle = 0.5 if self.several else 1 / shares.shape[1]
        return shares * (1 - self.label_smoothing) + self.label_smoothing * middle


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Int64 [batch] → float32 [batch, classes]; shares of classes stay as they are."""
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).float()


@torch.inference_mode()
def accuracies(
    model: Classifier,
    normalization: nn.Module,
    batches: Batches,
    device: torch.device,
    criterion: Criterion,
) -> dict[str, float]:
    """Mean loss, and the share of images whose label has the highest logit; see `Tally.scores`."""
    model.eval()
    counted: list[Tally] = []
    for pixels, labels in batches:
        pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        logits = model(normalization(pixels))
        counted.append(Tally())
        counted[-1].add(logits, labels, float(criterion(logits, labels)))
    tally = Tally()
    for batch in gathered(counted, batches.world_size):
        tally.include(batch)
    return tally.scores()


@torch.inference_mode()
def average_precisions(
    model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
) -> dict[str, float]:
    """Mean loss, and the mean over classes of the average precision of their ranking of the images.

    Classes without a positive or without a negative image have none. Holds the logits of the whole split.
    """
    model.eval()
    kept: list[tuple[Tensor, Tensor]] = []
    for pixels, targets in batches:
        logits = model(normalization(pixels.to(device, non_blocking=True))).float().cpu()
        kept.append((logits, targets.float()))
    logits, truth = map(torch.cat, zip(*gathered(kept, batches.world_size), strict=True))
    return {
        "loss": float(F.binary_cross_entropy_with_logits(logits, truth)),
        "mean_average_precision": mean_average_precision(logits.numpy(), truth.numpy().astype(np.uint8)),
    }


def _plain_binary(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, one_hot(labels, logits.shape[1]))
