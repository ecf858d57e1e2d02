"""The learning rate over time, and who is decayed."""

from typing import Any

import pytest
import torch

from training.metrics import Tally
from training.models import architecture
from training.optim import OPTIMIZERS, cosine, make_optimizer, schedule


def test_warms_up_then_falls_along_a_cosine_to_zero() -> None:
    share = cosine(total_steps=110, warmup_steps=10)
    assert [share(step) for step in (0, 4, 9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])
    assert share(10) == 1
    assert share(35) == pytest.approx(0.8535533905932737)
    assert share(60) == pytest.approx(0.5)
    assert share(110) == pytest.approx(0)
    assert all(share(step) > 0 for step in range(110))


def test_the_optimizer_follows_it() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = make_optimizer("sgd", whole(model), learning_rate=0.4, weight_decay=0)
    scheduler = schedule(optimizer, total_steps=4, warmup_steps=1)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2, 0.4, 0.3, 0.1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_batch_normalization_are_not_decayed(name: str) -> None:
    model = architecture("resnet20-cifar").build(10)
    optimizer = make_optimizer(name, whole(model), learning_rate=0.1, weight_decay=5e-4)
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0)
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert {parameter.ndim for parameter in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))
    assert decayed.get("nesterov", name != "sgd")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_does_not_learn_is_left_out_and_groups_keep_their_rates(name: str) -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    groups: list[dict[str, Any]] = [{"params": [model.weight, model.bias], "lr": 0.03}, {"params": []}]
    (group,) = make_optimizer(name, groups, learning_rate=0.1, weight_decay=0.0).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(model.weight)]
    assert group["lr"] == 0.03


def whole(model: torch.nn.Module) -> list[dict[str, Any]]:
    return [{"params": list(model.parameters())}]


def test_a_tally_weighs_batches_by_their_size() -> None:
    tally = Tally((1, 2))
    tally.add(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([0, 1, 2]), 2.0)
    tally.add(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]), 6.0)
    assert tally.loss == 3.0
    assert tally.accuracy(1) == 0.5
    assert tally.accuracy(2) == 0.75


def test_top_5_of_fewer_classes_is_everything() -> None:
    tally = Tally()
    tally.add(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), 1.0)
    assert tally.accuracy(5) == 1.0


@pytest.mark.parametrize("classes", [1, 5, 6])
def test_top_5_is_recorded_only_where_it_can_be_missed(classes: int) -> None:
    batch, tally = Tally(), Tally()
    assert batch.scores().keys() == {"loss", "accuracy"}
    batch.add(torch.arange(float(classes)).expand(2, -1), torch.tensor([0, classes - 1]), 1.0)
    tally.include(batch)
    tally.include(Tally())  # of a process that had no image
    of_five = {"top5_accuracy": 0.5} if classes == 6 else {}
    accuracy = 1.0 if classes == 1 else 0.5
    assert tally.scores() == {"loss": 1.0, "accuracy": accuracy} | of_five
