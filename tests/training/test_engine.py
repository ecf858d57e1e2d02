"""The training loop, seen from inside the network."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.preprocess import Preprocessing
from training.augment import Augmentation
from training.config import AugmentationConfig
from training.data import Batches, Split
from training.ema import AveragedWeights
from training.engine import Engine, Stepping
from training.errors import TrainingDiverged
from training.learner import Learner
from training.models import Classifier
from training.normalization import Normalization
from training.objective import CrossEntropy
from training.optim import cosine, make_optimizer, schedule
from training.transforms import EvalTransform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
NOTHING = AugmentationConfig(crop="none", mirror=False)


class Recorder(Classifier):
    """Two logits from the mean of each channel; keeps what it was given, and how."""

    trunk = ()

    def __init__(self) -> None:
        super().__init__(3)
        self.fc = nn.Linear(3, 2)
        self.inputs: list[Tensor] = []
        self.modes: list[bool] = []
        self.weights: list[Tensor] = []
        self.types: list[torch.dtype] = []

    def feature_maps(self, x: Tensor) -> Tensor:
        self.inputs.append(x.clone())
        self.modes.append(self.training)
        self.weights.append(self.fc.weight.detach().clone())
        self.types.append(torch.nn.functional.linear(x[0, :, 0, :1].T, self.fc.weight).dtype)
        return x


def made_batches() -> tuple[Batches, Tensor]:
    """10 pictures in batches of 4, and what the network should see of them."""
    images = np.random.default_rng(0).integers(0, 256, (10, 5, 5, 3), dtype=np.uint8)
    split = Split(images, np.arange(10, dtype=np.int64) % 2)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 255
    expected = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return Batches(split, EvalTransform(Preprocessing(5, 5, 5)), 4), expected.float()


def engine(
    model: Classifier, stepping: Stepping | None = None, rate: float = 0.1, ema: bool = False
) -> Engine:
    groups = [{"params": list(model.parameters())}]
    optimizer = make_optimizer("sgd", groups, learning_rate=rate, weight_decay=0.0)
    return Engine(
        Learner(model, CrossEntropy()),
        Augmentation(NOTHING, Normalization(MEAN, STD), 2),
        optimizer,
        schedule(optimizer, total_steps=6, warmup_steps=1),
        stepping or Stepping(),
        CPU,
        ema=AveragedWeights(model, 0.5) if ema else None,
    )


def test_learning_sees_normalized_pixels_in_training_mode() -> None:
    batches, expected = made_batches()
    model = Recorder().eval()
    assert list(engine(model).steps(batches)) == [4, 4, 2]
    assert [len(x) for x in model.inputs] == [4, 4, 2]
    assert torch.allclose(torch.cat(model.inputs), expected, atol=1e-5)
    assert model.modes == [True] * 3


def test_every_batch_moves_the_weights_and_the_learning_rate() -> None:
    batches, _ = made_batches()
    model = Recorder()
    learning = engine(model)
    share = cosine(total_steps=6, warmup_steps=1)
    rates = [learning.learning_rate] + [learning.learning_rate for _ in learning.steps(batches)]
    assert rates == pytest.approx([0.1 * share(step) for step in range(4)])
    for before, after in zip(model.weights, [*model.weights[1:], model.fc.weight], strict=True):
        assert not torch.equal(before, after)
    assert (learning.epoch, learning.batch, learning.step) == (1, 3, 3)


def test_accumulated_batches_are_one_step_with_their_mean_gradient() -> None:
    batches, expected = made_batches()
    model = Recorder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = engine(model, Stepping(accumulate=2))
    assert list(learning.steps(batches)) == [8, 2]
    assert learning.step == 2
    assert torch.equal(model.weights[0], model.weights[1])
    assert not torch.equal(model.weights[1], model.weights[2])
    twin = Recorder()
    twin.load_state_dict(before)
    labels = torch.arange(10) % 2
    losses = [nn.functional.cross_entropy(twin(expected[i : i + 4]), labels[i : i + 4]) for i in (0, 4)]
    (sum(losses) / 2).backward()  # type: ignore[union-attr]  # tensors
    # The first step of SGD with Nesterov's momentum goes 1.9 gradients far, at half the rate.
    moved = before["fc.weight"] - 0.05 * 1.9 * twin.fc.weight.grad  # type: ignore[operator]  # it has one now
    assert torch.allclose(model.weights[2], moved, atol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    batches, _ = made_batches()
    moves = []
    for clip in (0.0, 0.01):
        torch.manual_seed(0)
        model = Recorder()
        start = [parameter.detach().clone() for parameter in model.parameters()]
        next(iter(engine(model, Stepping(clip_norm=clip)).steps(batches)))
        change = [(a.detach() - b).flatten() for a, b in zip(model.parameters(), start, strict=True)]
        moves.append(float(torch.cat(change).norm()))
    assert moves[1] == pytest.approx(0.05 * 1.9 * 0.01, rel=1e-3)
    assert moves[0] > 10 * moves[1]


def test_bf16_computes_in_bfloat16_and_keeps_weights_in_float32() -> None:
    batches, _ = made_batches()
    for bf16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        model = Recorder()
        list(engine(model, Stepping(bf16=bf16)).steps(batches))
        assert set(model.types) == {expected}
        assert model.fc.weight.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_input_lies_as_asked(channels_last: bool) -> None:
    batches, _ = made_batches()
    layouts = []

    class Layout(Recorder):
        def feature_maps(self, x: Tensor) -> Tensor:
            layouts.append(x.stride(1) == 1)
            return super().feature_maps(x)

    list(engine(Layout(), Stepping(channels_last=channels_last)).steps(batches))
    assert layouts == [channels_last] * 3


def test_an_average_of_the_weights_is_scored() -> None:
    batches, _ = made_batches()
    model = Recorder()
    learning = engine(model, ema=True)
    average = None
    for number, _images in enumerate(learning.steps(batches)):
        weight = model.fc.weight.detach().clone()
        # The decay rises to 0.5 from (1 + n) / (10 + n); the first step is taken over whole.
        keep = min(0.5, (1 + number) / (10 + number))
        average = weight if average is None else keep * average + (1 - keep) * weight
        assert torch.allclose(learning.scored_model.head.weight, average, atol=1e-6)
    assert not torch.equal(learning.scored_model.head.weight, model.fc.weight)
    assert learning.scored_model is not model


def test_loss_and_accuracy_are_of_what_was_learned() -> None:
    batches, expected = made_batches()
    model = Recorder()
    learning = engine(model, rate=1e-9)
    list(learning.steps(batches))
    loss, accuracy = learning.check()
    logits, labels = model(expected).detach(), torch.arange(10) % 2
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    several = engine(Recorder(), replace(Stepping(), single_label=False))
    list(several.steps(batches))
    assert math.isnan(several.check()[1])


def test_an_infinite_loss_stops_before_it_reaches_the_weights() -> None:
    batches, _ = made_batches()
    model = Recorder()
    with torch.no_grad():
        model.fc.bias.fill_(math.nan)
    weight = model.fc.weight.detach().clone()
    with pytest.raises(TrainingDiverged, match="the loss became nan in epoch 1, in or before its batch 1,"):
        list(engine(model).steps(batches))
    assert torch.equal(model.fc.weight, weight)
