"""LAMB against the paper's algorithm 2, written out for one number at a time."""

import copy
import math

import pytest
import torch

from training.lamb import Lamb


def reference(
    weights: list[float], gradients: list[list[float]], rate: float, decay: float, adapt: bool
) -> list[float]:
    """The weights after a step with each of the gradients."""
    mean, square = [0.0] * len(weights), [0.0] * len(weights)
    for step, gradient in enumerate(gradients, 1):
        mean = [0.9 * m + 0.1 * g for m, g in zip(mean, gradient, strict=True)]
        square = [0.999 * v + 0.001 * g * g for v, g in zip(square, gradient, strict=True)]
        update = [
            (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-6) + decay * w
            for m, v, w in zip(mean, square, weights, strict=True)
        ]
        lengths = [math.sqrt(sum(x * x for x in values)) for values in (weights, update)]
        trust = lengths[0] / lengths[1] if adapt and min(lengths) > 0 else 1.0
        weights = [w - rate * trust * u for w, u in zip(weights, update, strict=True)]
    return weights


GRADIENTS = [[1.0, -2.0, 0.5], [0.1, 3.0, -1.0], [-1.0, 0.0, 0.2]]


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_follows_the_algorithm(decay: float) -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
    other = torch.nn.Parameter(torch.zeros(3))  # its length says nothing yet
    optimizer = Lamb([parameter, other], lr=0.1, weight_decay=decay)
    for gradient in GRADIENTS:
        parameter.grad, other.grad = torch.tensor(gradient), torch.tensor(gradient)
        optimizer.step()
    # Without decay (biases, normalisation) steps keep Adam's length.
    expected = reference([0.5, -1.0, 2.0], GRADIENTS, 0.1, decay, adapt=decay > 0)
    assert parameter.tolist() == pytest.approx(expected, rel=1e-4)
    assert other.tolist() == pytest.approx(
        reference([0.0] * 3, GRADIENTS, 0.1, decay, adapt=decay > 0), rel=1e-4
    )


def test_goes_on_from_its_state() -> None:
    one, other = (torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0])) for _ in range(2))
    first = Lamb([one], lr=0.1, weight_decay=0.02)
    for gradient in GRADIENTS[:2]:
        one.grad = torch.tensor(gradient)
        first.step()
    with torch.no_grad():
        other.copy_(one)
    second = Lamb([other], lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, parameter in ((first, one), (second, other)):
        parameter.grad = torch.tensor(GRADIENTS[2])
        optimizer.step()
    assert torch.equal(one, other)


def test_what_has_no_gradient_rests() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    Lamb([parameter], lr=0.1).step()
    assert parameter.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": 0.1, "eps": 0.0}, {"lr": 0.1, "betas": (0.9, 1.0)}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected none below 0"):
        Lamb([torch.nn.Parameter(torch.ones(2))], **wrong)  # type: ignore[arg-type]  # a table of them
