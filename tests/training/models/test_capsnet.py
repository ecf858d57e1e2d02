"""Capsules and the network of them against the paper's equations, written out a second time in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.errors import SettingError, WeightsError
from training.models import Classifier, architecture
from training.models.capsnet import CapsNet
from training.models.capsules import ClassCapsules, lengths, route, squash
from training.models.heads import with_embedding
from training.weights import load_weights

Array = NDArray[np.float64]


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(classes: int = 3) -> CapsNet:
    torch.manual_seed(0)
    return CapsNet(classes, channels=6, types=2)


def squashed(vector: Array) -> Array:
    """Equation 1."""
    squared = float(vector @ vector)
    unit: Array = vector / np.sqrt(squared)
    return squared / (1 + squared) * unit


def routed(votes: Array, iterations: int) -> Array:
    """Procedure 1, of one image: [below, above, dimension] → [above, dimension]."""
    below, above, dimension = votes.shape
    b = np.zeros((below, above))
    v = np.zeros((above, dimension))
    for _ in range(iterations):
        c = np.exp(b) / np.exp(b).sum(axis=1, keepdims=True)
        for j in range(above):
            v[j] = squashed(sum((c[i, j] * votes[i, j] for i in range(below)), np.zeros(dimension)))
        for i in range(below):
            for j in range(above):
                b[i, j] += votes[i, j] @ v[j]
    return v


def test_squash_is_the_papers() -> None:
    vectors = 3 * torch.randn(5, 4, dtype=torch.float64)
    expected = np.stack([squashed(vector) for vector in vectors.numpy()])
    np.testing.assert_allclose(squash(vectors).numpy(), expected, rtol=1e-9)
    assert lengths(squash(torch.tensor([3.0, 4.0]))).item() == pytest.approx(25 / 26)


def test_nothing_at_zero_has_no_number_for_a_gradient() -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    torch.autograd.backward(lengths(squash(vectors)).sum() + squash(vectors).sum())
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert torch.equal(squash(vectors), torch.zeros(2, 4))


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_routing_is_procedure_1(iterations: int) -> None:
    votes = torch.randn(3, 5, 7, 4, dtype=torch.float64)
    expected = np.stack([routed(one.transpose(1, 0, 2), iterations) for one in votes.numpy()])
    np.testing.assert_allclose(route(votes, iterations).numpy(), expected, rtol=1e-7, atol=1e-9)


def test_routing_follows_what_agrees() -> None:
    votes = torch.randn(1, 2, 12, 4, generator=torch.Generator().manual_seed(1))
    votes[0, 1] = torch.tensor([0.3, 0.3, 0.3, 0.3])  # all twelve say the same of the second
    agreed = votes[0, 1].sum(dim=0)
    before, after = (route(votes, iterations)[0, 1] for iterations in (1, 3))
    assert lengths(after) > lengths(before)
    assert torch.allclose(after / lengths(after), agreed / lengths(agreed))


def test_class_capsules_are_votes_of_every_primary_capsule() -> None:
    torch.manual_seed(0)
    layer = ClassCapsules(2, 3, grid=2, primary_dimension=4, dimension=5)
    maps = torch.randn(2, 8, 2, 2)
    with torch.no_grad():
        found = layer(maps)
    weight = layer.weight.detach().double().numpy()
    for image in range(2):
        votes = np.zeros((8, 3, 5))
        for kind in range(2):
            for place in range(4):
                primary = squashed(
                    maps[image, 4 * kind : 4 * kind + 4, place // 2, place % 2].double().numpy()
                )
                for j in range(3):
                    votes[4 * kind + place, j] = weight[j, 4 * kind + place] @ primary
        np.testing.assert_allclose(found[image].view(3, 5).numpy(), routed(votes, 3), rtol=1e-4, atol=1e-6)


def test_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):  # shapes alone, no memory
        model = CapsNet(10)
    # "6.8M" without the reconstruction, of grey pictures; two channels more come in here.
    assert size(model) - 2 * 9 * 9 * 256 == 6_804_224
    assert size(model.conv1) == 3 * 9 * 9 * 256 + 256
    assert size(model.primary) == 256 * 9 * 9 * 32 * 8 + 256
    assert size(model.pool) == 32 * 6 * 6 * 10 * 8 * 16


def test_has_the_papers_shapes() -> None:
    with torch.device("meta"):
        model = CapsNet(10)
    x = torch.empty(2, 3, 28, 28, device="meta")
    assert model.conv1(x).shape == (2, 256, 20, 20)
    assert model.feature_maps(x).shape == (2, 256, 6, 6)
    assert model.features(x).shape == (2, model.embedding_dimension) == (2, 160)
    assert model.lengths(model.features(x)).shape == (2, 10)
    assert model(x).shape == (2, model.classes) == (2, 10)
    assert model(torch.empty(2, 3, 45, 64, device="meta")).shape == (2, 10)
    assert architecture("capsnet").smallest_input == 28


def test_a_sigmoid_of_the_logits_gives_the_lengths_back() -> None:
    model = tiny()
    features = squash(torch.rand(50, 3, 1) * torch.randn(50, 3, 16)).flatten(1)
    logits, found = model.classify(features), model.lengths(features)
    assert torch.allclose(logits.sigmoid(), found, atol=1e-4)
    assert (logits.argmax(1) == found.argmax(1)).all()
    # Given that exactly one class is there, each by itself with its own probability.
    alone = [
        found[:, k] * torch.prod(1 - found[:, [other for other in range(3) if other != k]], dim=1)
        for k in range(3)
    ]
    expected = torch.stack(alone, dim=1)
    assert torch.allclose(logits.softmax(1), expected / expected.sum(1, keepdim=True), atol=2e-3)


def test_logits_are_finite_at_both_ends() -> None:
    features = torch.zeros(1, 48, requires_grad=True)
    logits = tiny().classify(features)
    torch.autograd.backward(logits.sum())
    assert torch.isfinite(logits).all()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    full = torch.zeros(1, 3, 16)
    full[..., 0] = 1
    assert torch.isfinite(tiny().classify(full.flatten(1))).all()


@pytest.mark.parametrize("classes", [2, 10, 50])
def test_capsules_start_neither_short_nor_saturated(classes: int) -> None:
    model = tiny(classes).eval()
    with torch.inference_mode():
        found = model.lengths(model.features(torch.randn(8, 3, 28, 28)))
    assert 0.02 < float(found.mean()) < 0.8


def test_stays_float32_under_autocast() -> None:
    model, x = tiny(), torch.randn(2, 3, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(x)
        assert model.classify(features).dtype == torch.float32
    assert features.dtype == torch.float32
    assert torch.allclose(features, model.features(x), atol=0.05)


def test_other_classes_are_other_capsules() -> None:
    model = tiny()
    model.replace_head(5)
    assert (model.classes, model.embedding_dimension) == (5, 80)
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 5)
    assert not load_weights(model, dict(tiny().state_dict()), "three", adapt_head=True)
    assert torch.equal(model.conv1.weight, tiny().conv1.weight)
    with pytest.raises(WeightsError, match=r"the head has 3 classes; expected 5"):
        load_weights(model, dict(tiny().state_dict()), "three")
    assert load_weights(tiny(), dict(tiny().state_dict()), "three")


def test_every_parameter_is_in_one_stage() -> None:
    stages = tiny().stages()
    assert [(name, len(parameters)) for name, parameters in stages] == [
        ("conv1", 2), ("primary", 2), ("head", 1),
    ]  # fmt: skip


def projected(model: Classifier) -> Any:
    return with_embedding(model, "avg", 8)


def generalised(model: Classifier) -> Any:
    return with_embedding(model, "gem")


def dropped(model: Classifier) -> Any:
    model.dropout = 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (projected, "CapsNet has no linear head: its logits are the lengths"),
        (generalised, "CapsNet ends in ClassCapsules instead, so expected avg"),
        (dropped, r"--dropout is 0\.1; CapsNet has none, so expected 0"),
    ],
)
def test_what_does_not_suit_capsules_is_refused(change: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        change(tiny())
    model = tiny()
    model.dropout = 0.0
    assert model.dropout == 0.0
