"""One pass over the data, seen from inside the network."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.preprocess import Preprocessing
from training.data import Batches, Split
from training.engine import evaluate, train_one_epoch
from training.errors import TrainingDiverged
from training.normalization import Normalization
from training.optim import cosine, schedule, sgd
from training.transforms import EvalTransform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Two logits from the mean of each channel; keeps what it was given, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.inputs: list[Tensor] = []
        self.modes: list[bool] = []
        self.weights: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.clone())
        self.modes.append(self.training)
        self.weights.append(self.head.weight.detach().clone())
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def made_batches() -> tuple[Batches, Tensor]:
    """10 pictures in batches of 4, and what the network should see of them."""
    images = np.random.default_rng(0).integers(0, 256, (10, 5, 5, 3), dtype=np.uint8)
    split = Split(images, np.arange(10, dtype=np.int64) % 2)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    expected = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return Batches(split, EvalTransform(Preprocessing(5, 5, 5)), 4), expected.float()


def learn(model: nn.Module, batches: Batches, rate: float = 0.1) -> tuple[list[float], list[int]]:
    """One epoch of two; the learning rate after each batch, and the batches' sizes."""
    optimizer = sgd(model, rate, weight_decay=0)
    scheduler = schedule(optimizer, total_steps=6, warmup_steps=1)
    rates = [optimizer.param_groups[0]["lr"]]
    sizes: list[int] = []

    def advance(images: int) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        sizes.append(images)

    train_one_epoch(
        model, Normalization(MEAN, STD), batches, nn.CrossEntropyLoss(), optimizer, scheduler, CPU, advance
    )
    return rates, sizes


def test_learning_sees_normalized_pixels_in_training_mode() -> None:
    batches, expected = made_batches()
    model = Recorder().eval()
    learn(model, batches)
    assert [len(x) for x in model.inputs] == [4, 4, 2]
    assert torch.allclose(torch.cat(model.inputs), expected, atol=1e-5)
    assert model.modes == [True] * 3


def test_scoring_sees_normalized_pixels_in_evaluation_mode_and_changes_nothing() -> None:
    batches, expected = made_batches()
    model = Recorder().train()
    before = model.head.weight.detach().clone()
    tally = evaluate(model, Normalization(MEAN, STD), batches, nn.CrossEntropyLoss(), CPU)
    assert torch.allclose(torch.cat(model.inputs), expected, atol=1e-5)
    assert model.modes == [False] * 3
    assert torch.equal(model.head.weight, before)
    logits, labels = model.head(expected.mean(dim=(2, 3))).detach(), torch.arange(10) % 2
    assert tally.images == 10
    assert tally.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert tally.accuracy() == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_every_batch_moves_the_weights_and_the_learning_rate() -> None:
    batches, _ = made_batches()
    model = Recorder()
    rates, sizes = learn(model, batches)
    assert sizes == [4, 4, 2]
    share = cosine(total_steps=6, warmup_steps=1)
    assert rates == pytest.approx([0.1 * share(step) for step in range(4)])
    for before, after in zip(model.weights, [*model.weights[1:], model.head.weight], strict=True):
        assert not torch.equal(before, after)


def test_an_infinite_loss_stops_before_it_reaches_the_weights() -> None:
    batches, _ = made_batches()
    model = Recorder()
    with torch.no_grad():
        model.head.bias.fill_(math.nan)
    weight = model.head.weight.detach().clone()
    with pytest.raises(TrainingDiverged, match="the loss became nan in epoch 0, after 0 of its images"):
        learn(model, batches)
    assert torch.equal(model.head.weight, weight)
