"""The learning-rate finder: one short run whose learning rate grows until it fails."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from training.config import RunConfig
from training.data import Batches, Dataset
from training.engine import Engine
from training.errors import SettingError, TrainingDiverged
from training.processor import use_processor
from training.setup import Say, build_engine, build_model, build_objective, train_batches

# Smith's ranges end where the loss explodes; four times the best is explosion enough.
_FAILED = 4.0
_SMOOTHING = 0.9
# Of steps that fall: fewer are noise.
_FEWEST = 5


@dataclass(frozen=True)
class RateSearch:
    """What was tried and what came of it.

    Attributes:
        rates: learning rates, rising.
        losses: the loss at each, as it came.
        smoothed: a running mean of them.
        suggestion: a learning rate for --learning-rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float


def find_rate(
    config: RunConfig, dataset: Dataset, lowest: float, highest: float, steps: int, say: Say
) -> RateSearch:
    """Raise the learning rate from step to step, by a factor (Smith 2015, arXiv:1506.01186, section 3.3).

    The suggestion is a third of the rate at which the smoothed loss is lowest.

    Args:
        config: of the run whose highest learning rate is sought.
        dataset: what it learns from; as many epochs as it takes.
        lowest, highest: the range.
        steps: of the optimizer; it ends sooner where the loss explodes.
        say: prints a line.

    Raises:
        SettingError: the range is empty, or too narrow to see anything.
    """
    if not 0 < lowest < highest:
        raise SettingError(f"--lowest is {lowest:g} and --highest {highest:g}; expected 0 < lowest < highest")
    use_processor(config.run.threads)
    model = build_model(config, say)
    objective = build_objective(config, model, dataset)
    batches = train_batches(config, dataset.train)
    engine = build_engine(config, model, objective, steps, torch.device(config.run.device))
    # Stages keep their ratios; the schedule is put out of work.
    shares = [group["lr"] / engine.learning_rate for group in engine.optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    for step, loss in enumerate(_losses(engine, batches, shares, lowest, highest, steps)):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        rates.append(lowest * (highest / lowest) ** (step / max(1, steps - 1)))
        losses.append(loss)
        smoothed.append(mean / (1 - _SMOOTHING ** (step + 1)))
        if smoothed[-1] > _FAILED * min(smoothed):
            break
    batches.close()
    return RateSearch(tuple(rates), tuple(losses), tuple(smoothed), below_the_brink(rates, smoothed))


def below_the_brink(rates: list[float], losses: list[float]) -> float:
    """A third of the rate at which the loss is lowest.

    That rate is on the brink; the highest of a schedule with a warm-up may come near it. Where the loss falls
    steepest is ten times lower here, and lost in the noise of a hundred steps.

    Raises:
        SettingError: the loss doesn't fall anywhere.
    """
    # The mean of the first few steps isn't smooth yet.
    start = min(len(losses) // 8, 20)
    lowest = min(range(start, len(losses)), key=losses.__getitem__, default=0)
    if lowest - start < _FEWEST:
        raise SettingError(
            f"the loss fell nowhere between --lowest and {rates[-1]:.3g}; expected it to fall: try a lower "
            "--lowest, or more --steps"
        )
    return rates[lowest] / 3


def write_plot(search: RateSearch, path: Path) -> None:
    """The losses over the rates, as a picture of the kind that the file's name says.

    Raises:
        OSError: it can't be written.
        ValueError: the name has no ending that stands for a format.
    """
    # Without pyplot: it would look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(search.rates, search.losses, color="0.8", linewidth=1, label="loss of each step")
    axes.plot(search.rates, search.smoothed, color="C0", label="smoothed")
    axes.axvline(search.suggestion, color="C3", linestyle="--", label=f"suggested: {search.suggestion:.2g}")
    # Steps that went wrong would flatten everything else.
    lowest, first = min(search.smoothed), search.smoothed[0]
    axes.set_ylim(lowest - 0.2 * abs(first - lowest), first + 0.6 * abs(first - lowest))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _losses(
    engine: Engine, batches: Batches, shares: list[float], lowest: float, highest: float, steps: int
) -> Iterator[float]:
    """The mean loss of each step as it is made, up to where it is no number any more."""
    groups = engine.optimizer.param_groups

    def set_rate() -> None:
        rate = lowest * (highest / lowest) ** (engine.step / max(1, steps - 1))
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = rate * share

    set_rate()
    try:
        while True:
            before = [0.0] * 4
            for _ in engine.steps(batches):
                sums = engine.tally.sums()
                loss = (sums[0] - before[0]) / (sums[1] - before[1])
                if not math.isfinite(loss):
                    return
                yield loss
                if engine.step == steps:
                    return
                before = sums
                set_rate()
            engine.next_epoch()
    except TrainingDiverged:
        pass
