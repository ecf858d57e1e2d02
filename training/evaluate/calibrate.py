"""A run's temperature, fitted on what its best checkpoint was chosen by: never on what is reported on."""

from collections.abc import Callable
from pathlib import Path

from training.evaluate.data import matched, run_pictures
from training.evaluate.predictions import gather
from training.evaluate.run import RunTarget
from training.run_temperature import read_temperature, write_temperature
from training.temperature import Temperature, fit_temperature


def calibrate(
    run: Path,
    checkpoint: str = "best",
    device: str = "auto",
    advance: Callable[[int], None] = lambda _images: None,
) -> Temperature | None:
    """Find the temperature of a checkpoint; that of 'best' is kept as temperature.json in the run's folder.

    Args:
        run: the folder of `fovea-train fit`.
        checkpoint: 'best' or 'last'.
        device: 'auto', 'cpu' or 'cuda'.
        advance: told the number of images done.

    Returns:
        What is there already where it is of the same weights; None for a network without classes.

    Raises:
        RunError: the run's val images can't be found again.
        DataError: the network's output isn't finite.
    """
    target = RunTarget(run, checkpoint, device)
    if not target.labels:
        return None
    weights = target.loaded.checkpoint.model
    known = read_temperature(run, weights)
    if known is not None:
        return known
    split = matched(run_pictures(run, "val"), target.labels, target.task)
    predictions = gather(target, split, advance)
    assert predictions.logits is not None  # noqa: S101 - of a network with classes
    found = fit_temperature(predictions.logits, split.labels[predictions.indices])
    if checkpoint == "best":
        write_temperature(run, found, weights)
    return found


def described(temperature: Temperature) -> str:
    """In words, with the numbers."""
    if temperature.reason:
        return f"temperature 1: {temperature.reason} (on {temperature.images:,} val images)"
    return (
        f"temperature {temperature.value:.4g}, fitted on {temperature.images:,} val images: calibration "
        f"error {temperature.ece_before:.2%} → {temperature.ece_after:.2%}, negative log-likelihood "
        f"{temperature.nll_before:.4f} → {temperature.nll_after:.4f}"
    )
