"""The temperature that was there is found; where nothing can be found it stays 1."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.errors import DataError
from training.probabilities import log_softmax, sigmoid
from training.temperature import HIGHEST, LOWEST, MIN_IMAGES, fit_temperature


def drawn(
    temperature: float, images: int = 4000, several: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits whose classes are drawn with the probabilities that they have at `temperature`."""
    draw = np.random.default_rng(0)
    logits = (4 * draw.normal(size=(images, 6))).astype(np.float32)
    if several:
        return logits, (draw.random(logits.shape) < sigmoid(logits, temperature)).astype(np.int64)
    gumbel = -np.log(-np.log(draw.random(logits.shape)))
    return logits, (log_softmax(logits, temperature) + gumbel).argmax(axis=1)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 6.0])
def test_the_temperature_that_was_there_is_found(temperature: float, several: bool) -> None:
    logits, targets = drawn(temperature, several=several)
    found = fit_temperature(logits, targets)
    assert found.value == pytest.approx(temperature, rel=0.06)
    assert found.nll_after < found.nll_before
    assert found.ece_after < 0.02 < found.ece_before
    assert found.reason == ""
    assert found.images == 4000


def test_no_other_temperature_has_less_loss() -> None:
    from training.probabilities import nll

    logits, targets = drawn(3.0, images=300)
    found = fit_temperature(logits, targets)
    others = np.linspace(0.1, 10, 400)
    assert found.nll_after <= min(nll(logits, targets, other) for other in others) + 1e-9


def test_what_is_never_wrong_keeps_its_probabilities() -> None:
    logits, _ = drawn(1.0, images=100)
    found = fit_temperature(logits, logits.argmax(axis=1))
    assert found.value == 1
    assert "nothing was wrong" in found.reason
    assert found.nll_after == found.nll_before
    several = fit_temperature(logits, (logits > 0).astype(np.int64))
    assert (several.value, several.reason) == (1, found.reason)


def test_few_images_say_nothing() -> None:
    logits, targets = drawn(3.0, images=MIN_IMAGES - 1)
    found = fit_temperature(logits, targets)
    assert found.value == 1
    assert found.reason.startswith(f"{MIN_IMAGES - 1} images are too few")
    assert fit_temperature(*drawn(3.0, images=MIN_IMAGES)).reason == ""


def test_it_is_bounded() -> None:
    draw = np.random.default_rng(0)
    noise = (1000 * draw.normal(size=(500, 4))).astype(np.float32)
    assert fit_temperature(noise, draw.integers(0, 4, 500)).value == pytest.approx(HIGHEST, rel=1e-3)
    timid, targets = noise / 1e7, noise.argmax(axis=1)
    targets[0] = (targets[0] + 1) % 4
    assert fit_temperature(timid, targets).value == pytest.approx(LOWEST, rel=1e-3)


def test_logits_that_are_not_numbers_are_refused() -> None:
    logits, targets = drawn(1.0, images=30)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="finite"):
        fit_temperature(logits, targets)
