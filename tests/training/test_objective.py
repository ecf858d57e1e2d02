"""The classification losses, against what they are defined as."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from service.preprocess import Preprocessing
from training.data import Batches, Split
from training.models import Classifier
from training.normalization import Normalization
from training.objective import BinaryCrossEntropy, CrossEntropy, Objective
from training.transforms import EvalTransform

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
SURPRISE = -torch.log_softmax(LOGITS, dim=1)
CPU = torch.device("cpu")


class Fixed(Classifier):
    """Logits that are the mean of each colour, ten times; two auxiliary heads with other ones."""

    trunk = ()
    auxiliary_weights = (0.3, 0.3)

    def __init__(self) -> None:
        super().__init__(3)
        self.fc = nn.Linear(3, 3)

    def feature_maps(self, x: Tensor) -> Tensor:
        return x

    def classify(self, features: Tensor) -> Tensor:
        return 10 * features

    def forward_with_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.forward(x), LOGITS, 2 * LOGITS


def loss(objective: Any, targets: Tensor, logits: Tensor = LOGITS) -> float:
    return float(objective.criterion(logits, targets))


def test_labels_are_smoothed_as_the_paper_has_it() -> None:
    # Szegedy et al. 2015 (arXiv:1512.00567), section 7: 0.7 on the label, 0.3 over all classes.
    expected = float((0.7 * SURPRISE[:, 0] + 0.3 * SURPRISE.mean(1)).mean())
    assert loss(CrossEntropy(label_smoothing=0.3), torch.tensor([0, 0])) == pytest.approx(expected)


def test_soft_targets_count_by_their_shares() -> None:
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    expected = float((0.7 * SURPRISE[0, 0] + 0.3 * SURPRISE[0, 1] + SURPRISE[1, 2]) / 2)
    assert loss(CrossEntropy(), shares) == pytest.approx(expected)
    assert loss(CrossEntropy(), F.one_hot(torch.tensor([1, 2]), 3).float()) == pytest.approx(
        loss(CrossEntropy(), torch.tensor([1, 2]))
    )


def test_class_weights_let_rare_classes_count_more() -> None:
    objective = CrossEntropy(torch.tensor([1.0, 3.0, 1.0]))
    expected = float((SURPRISE[0, 0] + 3 * SURPRISE[1, 1]) / 4)
    assert loss(objective, torch.tensor([0, 1])) == pytest.approx(expected)
    assert "class_weights" in objective.state_dict()


def test_auxiliary_heads_count_by_their_weights() -> None:
    model, targets = Fixed(), torch.tensor([0, 1])
    inputs = torch.rand(2, 3, 4, 4)
    step = CrossEntropy()(model, inputs, targets)
    parts = [F.cross_entropy(logits, targets) for logits in model.forward_with_auxiliary(inputs)]
    assert float(step.loss) == pytest.approx(float(parts[0] + 0.3 * parts[1] + 0.3 * parts[2]))
    assert step.logits is not None
    assert torch.equal(step.logits, model(inputs))


def test_binary_cross_entropy_of_several_labels() -> None:
    truth = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    surprise = -(truth * F.logsigmoid(LOGITS) + (1 - truth) * F.logsigmoid(-LOGITS))
    assert loss(BinaryCrossEntropy("multi_label"), truth) == pytest.approx(float(surprise.mean()))
    weights = torch.tensor([2.0, 1.0, 5.0])
    weighed = -(weights * truth * F.logsigmoid(LOGITS) + (1 - truth) * F.logsigmoid(-LOGITS))
    assert loss(BinaryCrossEntropy("multi_label", weights), truth) == pytest.approx(float(weighed.mean()))
    smoothed = truth * 0.8 + 0.1
    both = -(smoothed * F.logsigmoid(LOGITS) + (1 - smoothed) * F.logsigmoid(-LOGITS))
    assert loss(BinaryCrossEntropy("multi_label", label_smoothing=0.2), truth) == pytest.approx(
        float(both.mean())
    )


def test_binary_cross_entropy_of_one_label_has_the_others_as_negatives() -> None:
    truth = F.one_hot(torch.tensor([2, 0]), 3).float()
    expected = float(F.binary_cross_entropy_with_logits(LOGITS, truth))
    assert loss(BinaryCrossEntropy("single_label"), torch.tensor([2, 0])) == pytest.approx(expected)


def test_labels_of_mixed_pictures_count_in_full_above_a_threshold() -> None:
    # As timm's BinaryCrossEntropy(smoothing=0, target_threshold=0.2).
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.0, 0.9]])
    full = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    expected = float(F.binary_cross_entropy_with_logits(LOGITS, full))
    objective = BinaryCrossEntropy("single_label", target_threshold=0.2)
    assert loss(objective, shares) == pytest.approx(expected)
    assert loss(objective, torch.tensor([2, 0])) == pytest.approx(
        loss(BinaryCrossEntropy("single_label"), torch.tensor([2, 0]))
    )
    # Smoothing is of what is left of them: by a tenth of the way to a third.
    smoothed = float(F.binary_cross_entropy_with_logits(LOGITS, 0.9 * full + 0.1 / 3))
    both = BinaryCrossEntropy("single_label", label_smoothing=0.1, target_threshold=0.2)
    assert loss(both, shares) == pytest.approx(smoothed)


@pytest.mark.parametrize("objective", [CrossEntropy(torch.ones(3), 0.3), BinaryCrossEntropy("single_label")])
def test_one_label_is_scored_by_accuracy_without_smoothing(objective: Objective) -> None:
    # The brightest channel is the class, but for the last picture.
    images = np.zeros((5, 4, 4, 3), np.uint8)
    labels = np.array([0, 1, 2, 0, 1])
    for image, label in zip(images, [0, 1, 2, 0, 2], strict=True):
        image[:, :, label] = 255
    batches = Batches(Split(images, labels), EvalTransform(Preprocessing(4, 4, 4)), 2)
    model = Fixed()
    scores = objective.validate(model, Normalization((0, 0, 0), (1, 1, 1)), batches, CPU)
    assert objective.selects_by == "accuracy"
    assert scores["accuracy"] == 0.8
    assert scores.keys() == {"loss", "accuracy"}
    logits = 10 * F.one_hot(torch.tensor([0, 1, 2, 0, 2]), 3).float()
    truth = torch.from_numpy(labels)
    plain = (
        F.cross_entropy(logits, truth)
        if isinstance(objective, CrossEntropy)
        else F.binary_cross_entropy_with_logits(logits, F.one_hot(truth, 3).float())
    )
    assert scores["loss"] == pytest.approx(float(plain), rel=1e-5)
    assert not model.training


def test_several_labels_are_scored_by_mean_average_precision() -> None:
    images = np.zeros((4, 4, 4, 3), np.uint8)
    images[:, :, :, 0] = np.array([250, 200, 150, 100], np.uint8)[:, None, None]
    images[:, :, :, 1] = np.array([10, 20, 30, 40], np.uint8)[:, None, None]
    # Class 0: ranked 1st and 3rd, precision 1 and 2/3. Class 1: ranked 1st. Class 2: never, so no score.
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8)
    batches = Batches(Split(images, labels), EvalTransform(Preprocessing(4, 4, 4)), 3)
    objective = BinaryCrossEntropy("multi_label")
    scores = objective.validate(Fixed(), Normalization((0, 0, 0), (1, 1, 1)), batches, CPU)
    assert objective.selects_by == "mean_average_precision"
    assert scores["mean_average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
