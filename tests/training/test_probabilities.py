"""Logits → losses, against PyTorch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

from training import probabilities
from training.probabilities import log_softmax, nll, sigmoid


def logits(
    rows: int = 50, columns: int = 7, scale: float = 30.0
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return (np.random.default_rng(3).normal(size=(rows, columns)) * scale).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_losses_are_pytorchs(temperature: float) -> None:
    values = logits()
    scaled = torch.from_numpy(values).double() / temperature
    targets = np.arange(50) % 7
    expected = float(F.cross_entropy(scaled, torch.from_numpy(targets)))
    assert nll(values, targets, temperature) == pytest.approx(expected, rel=1e-12)
    several = (np.random.default_rng(1).random((50, 7)) < 0.3).astype(np.uint8)
    expected = float(F.binary_cross_entropy_with_logits(scaled, torch.from_numpy(several).double()))
    assert nll(values, several, temperature) == pytest.approx(expected, rel=1e-12)
    logs = F.log_softmax(scaled, 1).numpy()
    # The logarithm of nearly 1 is a difference: exact to the last bit of 1, not of itself.
    np.testing.assert_allclose(log_softmax(values, temperature), logs, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(sigmoid(values, temperature), scaled.sigmoid().numpy(), rtol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, targets = logits(), np.arange(50) % 7
    whole = nll(values, targets)
    monkeypatch.setattr(probabilities, "_BLOCK_VALUES", 30)
    assert nll(values, targets) == pytest.approx(whole, rel=1e-14)


def test_the_largest_logits_overflow_nothing() -> None:
    huge = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    assert nll(huge, np.array([0, 1])) == 0
    assert sigmoid(huge).tolist() == [[1, 0], [0, 1]]


def test_of_no_images_the_loss_is_no_number() -> None:
    assert np.isnan(nll(np.empty((0, 3), np.float32), np.empty(0, np.int64)))
