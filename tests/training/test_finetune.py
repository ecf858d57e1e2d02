"""Freezing by stage, and learning rates that fall towards the input."""

import pytest
import torch
from torch import nn

from training.errors import SettingError
from training.finetune import freeze, freeze_heads, layer_wise_learning_rates, train_mode, unfreeze
from training.models import Classifier, architecture
from training.models.heads import with_embedding

STAGES = [name for name, _ in architecture("resnet20-cifar").build(3).stages()]


def network() -> Classifier:
    torch.manual_seed(0)
    return with_embedding(architecture("resnet20-cifar").build(3), "gem", 8)


def learn(model: Classifier, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3, 8, 8) + 1).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("up_to", STAGES[:-1])
def test_a_frozen_stage_keeps_weights_and_statistics(up_to: str) -> None:
    model = network()
    assert freeze(model, up_to) == STAGES[: STAGES.index(up_to) + 1]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_mode(model)
    learn(model)
    ids = {id(p): stage for stage, parameters in model.stages() for p in parameters}
    frozen_stages = STAGES[: STAGES.index(up_to) + 1]
    for name, parameter in model.named_parameters():
        kept = torch.equal(parameter, before[name])
        assert kept == (ids[id(parameter)] in frozen_stages), name
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            frozen = ids[id(module.weight)] in frozen_stages
            assert module.training != frozen
            assert torch.equal(module.running_mean, before[f"{name}.running_mean"]) == frozen  # type: ignore[arg-type]  # has statistics
            assert int(module.num_batches_tracked or 0) == (0 if frozen else 3)


def test_everything_learns_again_after_unfreezing() -> None:
    model = network()
    freeze(model, STAGES[-2])
    train_mode(model)
    unfreeze(model)
    train_mode(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_without_freezing_training_mode_is_pytorchs() -> None:
    model = network().eval()
    train_mode(model)
    assert all(module.training for module in model.modules())


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingError, match=r"--freeze is 'layer9'; expected a stage of CifarResNet: \w+, "):
        freeze(network(), "layer9")
    with pytest.raises(SettingError, match="with 'head' nothing would learn"):
        freeze(network(), "head")


def test_heads_without_a_use_are_frozen_and_the_embedding_is_not() -> None:
    model = network()
    freeze_heads(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in model.named_parameters()} - learning == {"fc.weight", "fc.bias"}
    assert {"pool.pooling.power", "pool.linear.weight"} <= learning
    # So a loss on the embedding leaves no parameter without a gradient.
    model.features(torch.randn(4, 3, 8, 8)).sum().backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_rates_fall_from_the_head_to_the_input() -> None:
    model = network()
    groups = layer_wise_learning_rates(model, 0.1, 0.5)
    assert [group["name"] for group in groups] == STAGES
    assert [group["lr"] for group in groups] == pytest.approx(
        [0.1 * 0.5**distance for distance in range(len(STAGES) - 1, -1, -1)]
    )
    together = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(together) == sorted(id(parameter) for parameter in model.parameters())
    torch.optim.SGD(groups, lr=0.1)
    assert {group["lr"] for group in layer_wise_learning_rates(model, 0.1, 1.0)} == {0.1}


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(SettingError, match="--layer-decay is"):
        layer_wise_learning_rates(network(), 0.1, decay)
