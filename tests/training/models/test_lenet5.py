"""LeNet-5 against the paper's figure 2 and table I."""

import pytest
import torch

from training.models import architecture
from training.models.lenet5 import LeNet5, PartialConv, squashed


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_the_papers_numbers_of_parameters_layer_by_layer() -> None:
    model = LeNet5(10)
    layers = (model.c1, model.s2, model.c3, model.s4, model.c5, model.pool)
    assert [size(layer) for layer in layers] == [156, 12, 1_516, 32, 48_120, 10_164]
    # "only 60,000 trainable free parameters"; the ten radial basis functions aren't trained there.
    assert size(model) - size(model.head) == 60_000
    assert size(model.head) == 84 * 10 + 10


def test_has_the_papers_shapes() -> None:
    model = LeNet5(10)
    x = torch.zeros(2, 3, 32, 32)
    assert model.feature_maps(x).shape == (2, 120, 1, 1)
    assert model.features(x).shape == (2, 84)
    assert model(x).shape == (2, 10)
    assert model(torch.zeros(2, 3, 48, 64)).shape == (2, 10)


def test_each_map_of_c3_sees_the_maps_of_table_i() -> None:
    layer = PartialConv()
    x = torch.zeros(6, 6, 5, 5)
    x[range(6), range(6)] = 1  # one map at a time
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(1 if name.endswith("weight") else 0)
        sees = layer(x)[:, :, 0, 0] > 0
    table = ("X   XXX  XXXX XX", "XX   XXX  XXXX X", "XXX   XXX  X XXX", " XXX  XXXX  X XX",
             "  XXX  XXXX XX X", "   XXX  XXXX XXX")  # fmt: skip
    assert sees.tolist() == [[column == "X" for column in row] for row in table]


def test_the_squashing_keeps_one() -> None:
    assert squashed(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-4)


def test_learns() -> None:
    torch.manual_seed(0)
    model = architecture("lenet5").build(2)
    targets = torch.arange(16) % 2
    x = torch.randn(16, 3, 32, 32)
    x[targets == 1, :, :16] += 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(x), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
