"""The margin loss and the drawing that goes with it, against numbers computed by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.preprocess import Preprocessing
from training.data import Batches, Split, digits
from training.errors import SettingError
from training.losses import make_objective
from training.margin_loss import Decoder, MarginLoss
from training.models import architecture
from training.models.capsnet import CapsNet
from training.normalization import Normalization
from training.options import FitOptions, resolve
from training.splits import MULTI_LABEL, Dataset
from training.transforms import EvalTransform

CPU = torch.device("cpu")
PLAIN = Normalization((0, 0, 0), (1, 1, 1))
LENGTHS = torch.tensor([[0.95, 0.3, 0.05], [0.5, 0.1, 0.0]])


def network(classes: int = 3) -> CapsNet:
    torch.manual_seed(0)
    return CapsNet(classes, channels=6, types=2)


def objective(**changes: Any) -> MarginLoss:
    torch.manual_seed(0)
    made = make_objective("margin", classes=3, embedding_dimension=48, **changes)
    assert isinstance(made, MarginLoss)
    return made


def one_hot(*labels: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), 3).float()


def test_margins_are_equation_4() -> None:
    # The first: 0.95 is long enough, and 0.3 is 0.2 too long, 0.5 · 0.04; the second: 0.1 is 0.8 too short,
    # 0.64, and 0.5 is 0.4 too long, 0.5 · 0.16.
    expected = (0.02 + (0.64 + 0.08)) / 2
    assert float(objective().margins(LENGTHS, one_hot(0, 1))) == pytest.approx(expected)


def test_several_classes_are_each_to_be_long() -> None:
    present = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    expected = (0.6**2 + 0.5 * 0.4**2) / 2
    assert float(objective(task="multi_label").margins(LENGTHS, present)) == pytest.approx(expected)


def test_mixed_pictures_count_by_their_shares() -> None:
    present = 0.7 * one_hot(0, 1) + 0.3 * one_hot(1, 0)
    parts = [float(objective().margins(LENGTHS, one_hot(*labels))) for labels in ((0, 1), (1, 0))]
    assert float(objective().margins(LENGTHS, present)) == pytest.approx(0.7 * parts[0] + 0.3 * parts[1])


def test_settings_are_the_papers_unless_told_otherwise() -> None:
    assert objective().settings == {
        "m_plus": 0.9, "m_minus": 0.1, "absent_weight": 0.5, "reconstruction": 0.0005,
    }  # fmt: skip
    told = objective(m_plus=0.8, m_minus=0.2, absent_weight=1.0)
    assert float(told.margins(LENGTHS, one_hot(0, 1))) == pytest.approx((0.01 + 0.49 + 0.09) / 2)


def test_the_drawings_squared_errors_are_summed_over_the_picture() -> None:
    model, inputs, targets = network(), torch.zeros(2, 3, 28, 28), torch.tensor([0, 2])
    loss = objective()
    assert loss.decoder is not None
    for parameter in loss.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    alone = objective(reconstruction=0.0)
    assert alone.decoder is None
    # A drawing that is half grey, of a black picture.
    difference = loss(model, inputs, targets).loss - alone(model, inputs, targets).loss
    assert difference.item() == pytest.approx(0.0005 * 28 * 28 * 0.25, rel=1e-4)


def test_has_the_papers_decoder() -> None:
    sizes = [parameter.numel() for parameter in Decoder(160).parameters()]
    # The paper's last layer draws one channel.
    assert sizes == [160 * 512, 512, 512 * 1024, 1024, 1024 * 3 * 784, 3 * 784]


def test_what_is_drawn_are_pixels_before_normalisation() -> None:
    normalization = Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    pixels = torch.rand(2, 3, 30, 30)
    inputs = normalization.of_shares(pixels)
    assert torch.allclose(normalization.to_shares(inputs), pixels, atol=1e-6)
    torch.manual_seed(0)
    plain = Decoder(48)
    told = Decoder(48, normalization)
    told.layers.load_state_dict(plain.layers.state_dict())
    capsules = torch.randn(2, 48)
    assert torch.allclose(told(capsules, inputs), plain(capsules, pixels), rtol=1e-4)


def test_only_the_capsules_of_the_pictures_classes_draw_it() -> None:
    model, loss = network(), objective(m_plus=1.0, absent_weight=0.0)
    features = model.features(torch.randn(2, 3, 28, 28)).detach().requires_grad_()
    seen = []
    assert loss.decoder is not None
    loss.decoder.register_forward_pre_hook(lambda _decoder, inputs: seen.append(inputs[0]))
    model.features = lambda x: features  # type: ignore[method-assign]  # so that they are known here
    loss(model, torch.rand(2, 3, 28, 28), torch.tensor([0, 2]))
    (capsules,) = seen
    assert torch.equal(capsules[0, :16], features[0, :16])
    assert torch.equal(capsules[1, 32:], features[1, 32:])
    assert not capsules[0, 16:].any()
    assert not capsules[1, :32].any()


@pytest.mark.parametrize("bf16", [False, True])
def test_everything_learns(bf16: bool) -> None:
    model, loss = network(), objective(normalization=PLAIN)
    inputs, targets = torch.rand(6, 3, 28, 28), torch.arange(6) % 3
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            step = loss(model, inputs, targets)
        optimizer.zero_grad()
        step.loss.backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters)
        optimizer.step()
        losses.append(step.loss.item())
    assert step.loss.dtype == torch.float32
    assert step.logits is not None
    assert losses[-1] < 0.7 * losses[0]


def test_scores_are_of_the_margins_alone() -> None:
    model, loss = network(), objective()
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), np.uint8)
    labels = np.array([0, 1, 2, 0, 1])
    batches = Batches(Split(images, labels), EvalTransform(Preprocessing(28, 28, 28)), 5)
    scores = loss.validate(model, PLAIN, batches, CPU)
    with torch.inference_mode():
        features = model.features(PLAIN(torch.from_numpy(images)))
        expected = loss.margins(model.lengths(features), one_hot(*labels.tolist()))
        right = float((model.classify(features).argmax(1).numpy() == labels).mean())
    assert loss.selects_by == "accuracy"
    assert scores["loss"] == pytest.approx(float(expected), abs=5e-4)
    assert scores["accuracy"] == pytest.approx(right)
    assert not model.training


def test_several_labels_are_scored_by_mean_average_precision() -> None:
    loss = objective(task="multi_label")
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], np.uint8)
    batches = Batches(Split(images, labels), EvalTransform(Preprocessing(28, 28, 28)), 3)
    scores = loss.validate(network(), PLAIN, batches, CPU)
    assert loss.selects_by == "mean_average_precision"
    assert 0 < scores["mean_average_precision"] <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m_plus": 0.1}, r"m_minus=0\.1 and m_plus=0\.1; expected lengths with"),
        ({"m_plus": 1.5}, r"m_plus=1\.5; expected lengths with 0 <= m_minus < m_plus <= 1"),
        ({"m_minus": -0.1}, r"has m_minus=-0\.1; expected a number of at least 0"),
        ({"scale": 3.0}, "margin has no setting scale; it has m_plus = 0.9, m_minus = 0.1"),
        ({"label_smoothing": 0.1}, "margin has no label smoothing; that is for cross-entropy and binary-c"),
        ({"class_weights": torch.ones(3)}, "margin has no class weights; that is for cross-entropy"),
        ({"class_disjoint": True}, "and held-out classes have none; expected cross-entropy or a metric"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        objective(**changes)


def test_networks_without_capsules_are_refused() -> None:
    model = architecture("resnet20-cifar").build(3)
    with pytest.raises(SettingError, match="CifarResNet has none; expected --arch capsnet"):
        objective()(model, torch.zeros(2, 3, 28, 28), torch.tensor([0, 1]))
    with pytest.raises(SettingError, match="resnet18 has none; expected --arch capsnet"):
        resolve(FitOptions("digits", arch="resnet18", loss="margin"), architecture("resnet18"), digits())


def test_capsules_learn_by_it_unless_told_otherwise() -> None:
    def loss(**told: Any) -> str:
        dataset: Dataset = told.pop("dataset", digits())
        options = FitOptions("digits", arch="capsnet", **told)
        return resolve(options, architecture("capsnet"), dataset).embedding.loss

    several = replace(digits(), task=MULTI_LABEL)
    assert loss() == "margin"
    assert loss(dataset=several) == "margin"
    assert loss(loss="cross-entropy") == "cross-entropy"
    assert loss(holdout_classes=2) == "cross-entropy"
