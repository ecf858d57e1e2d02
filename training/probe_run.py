"""A probe's head and its backbone as a run's folder: what evaluate, report and export take."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from training import config as run_config
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import RunConfig, write_config
from training.data import Dataset
from training.evaluate.calibrate import described
from training.linear_probe import Probe, scores
from training.models import Classifier
from training.run_folder import Summary, log_epoch, write_splits, write_summary
from training.run_temperature import write_temperature
from training.splits import MULTI_LABEL
from training.temperature import fit_temperature


def leave_run(
    folder: Path,
    config: RunConfig,
    dataset: Dataset,
    model: Classifier,
    head: Probe,
    splits: tuple[tuple[Tensor, Tensor], ...],
    seconds: float,
    say: Callable[[str], None],
) -> Summary:
    """Write the run's folder.

    Args:
        folder: made, with `checkpoints/` in it.
        config: as `fit` would have it.
        dataset: what was learned from.
        model: with the head in it.
        head: how that was found.
        splits: the features and targets of train, val and test.
        seconds: spent.
        say: prints a line.
    """
    config = _recorded(config, model, head)
    logits = [(vectors @ head.weight.T + head.bias, targets) for vectors, targets in splits]
    train, val, test = (scores(*each) for each in logits)
    selects_by = "mean_average_precision" if dataset.task == MULTI_LABEL else "accuracy"
    write_config(folder, config)
    write_splits(folder, dataset)
    line: dict[str, float] = {"epoch": 1, "step": head.best.steps}
    line |= {f"train_{name}": value for name, value in train.items()}
    line |= {f"val_{name}": value for name, value in val.items()}
    log_epoch(folder, line)
    trials = json.dumps([asdict(trial) for trial in head.trials], indent=2)
    (folder / "probe.json").write_text(trials + "\n", encoding="utf-8")
    checkpoint = Checkpoint(
        model.state_dict(), epoch=1, metrics=val, step=head.best.steps, selects_by=selects_by
    )
    for name in ("best.pt", "last.pt"):
        save_checkpoint(folder / "checkpoints" / name, checkpoint)
    of_val, targets = (part.cpu().numpy() for part in logits[1])
    temperature = fit_temperature(of_val.astype(np.float32), targets.astype(np.int64))
    write_temperature(folder, temperature, checkpoint.model)
    say(described(temperature))
    summary = Summary(
        run=str(folder),
        architecture=config.model.architecture,
        best_epoch=1,
        selects_by=selects_by,
        val=val,
        test=test,
        test_images=len(dataset.test),
        epochs=1,
        seconds=round(seconds, 2),
    )
    write_summary(folder, summary)
    return summary


def _recorded(config: RunConfig, model: Classifier, head: Probe) -> RunConfig:
    """What config.toml says: how this was learned, not how `fit` would have."""
    stages = [name for name, _ in model.stages()]
    return replace(
        config,
        augmentation=run_config.AugmentationConfig(crop="none", mirror=False),
        optimization=replace(
            config.optimization,
            optimizer="lbfgs",
            learning_rate=1.0,
            momentum=0.0,
            weight_decay=head.best.weight_decay,
        ),
        transfer=run_config.TransferConfig(freeze=stages[-2]),
    )
