"""Pooling and projection: what they compute, what they need, and that everything behind them follows."""

import pytest
import torch

from training.errors import SettingError
from training.models import Classifier, architecture
from training.models.classifier import GlobalAverage
from training.models.heads import GeM, Projection, with_embedding


def network(classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    return architecture("resnet20-cifar").build(classes)


@pytest.mark.parametrize("power", [1.0, 3.0, 6.5])
def test_gem_is_the_generalised_mean(power: float) -> None:
    maps = torch.rand(2, 4, 3, 5) + 0.1
    pooled = GeM(power)(maps)
    expected = (maps.double() ** power).mean(dim=(2, 3)) ** (1 / power)
    assert torch.allclose(pooled.double(), expected, rtol=1e-5)


def test_gem_lies_between_mean_and_maximum_and_nears_both() -> None:
    maps = torch.rand(2, 4, 6, 6)
    mean, largest = maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))
    assert torch.allclose(GeM(1.0)(maps), mean, atol=1e-5)
    assert torch.allclose(GeM(60.0)(maps), largest, rtol=0.07)
    assert ((GeM()(maps) > mean) & (GeM()(maps) < largest)).all()


def test_gem_learns_its_power_and_survives_zeros() -> None:
    pool = GeM()
    maps = torch.zeros(2, 4, 3, 3, requires_grad=True)
    with torch.no_grad():
        maps[0, 0, 0, 0] = 2.0
        maps[0, 1, 0, 0] = -2.0
    pool(maps).sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert pool.power.grad is not None
    assert torch.isfinite(pool.power.grad).all()
    assert pool.power.grad.abs() > 0


def test_gem_keeps_float32_under_autocast() -> None:
    maps = torch.rand(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = GeM()(maps.bfloat16())
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled, GeM()(maps.bfloat16().float()))


def test_a_projection_starts_orthogonal_and_has_no_bias() -> None:
    projection = Projection(GlobalAverage(), 64, 16)
    assert torch.allclose(projection.linear.weight @ projection.linear.weight.T, torch.eye(16), atol=1e-5)
    assert projection.linear.bias is None


@pytest.mark.parametrize("pooling", ["avg", "gem"])
@pytest.mark.parametrize("dimension", [None, 0, 16])
def test_the_embedding_and_the_head_follow(pooling: str, dimension: int | None) -> None:
    model = network()
    assert with_embedding(model, pooling, dimension) is model
    width = dimension or 64
    images = torch.rand(2, 3, 16, 16)
    assert model.embedding_dimension == width
    assert model.head.in_features == width
    assert model.features(images).shape == (2, width)
    assert model(images).shape == (2, 3)
    in_stages = [id(parameter) for _, parameters in model.stages() for parameter in parameters]
    assert sorted(in_stages) == sorted(id(parameter) for parameter in model.parameters())


def test_weights_are_kept_where_nothing_new_is_asked_for() -> None:
    model = network()
    images = torch.rand(2, 3, 16, 16)
    model.eval()
    before = model(images)
    assert torch.equal(with_embedding(model)(images), before)
    head = model.head
    assert with_embedding(model, "gem").head is head


def test_a_state_dict_goes_into_a_network_made_alike() -> None:
    first = with_embedding(network(), "gem", 16).eval()
    second = with_embedding(architecture("resnet20-cifar").build(3), "gem", 16).eval()
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(first(images), second(images))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingError, match="--pooling is 'max'; expected one of avg, gem"):
        with_embedding(network(), "max")
    with pytest.raises(SettingError, match="--projection is -1"):
        with_embedding(network(), "avg", -1)
    with pytest.raises(SettingError, match="ends in Projection"):
        with_embedding(with_embedding(network(), "avg", 8), "gem")
