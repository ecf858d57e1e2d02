"""One training run, from a data set's name to its folder with checkpoints and scores."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training import config as run_config
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import RunConfig
from training.data import Batches, Dataset, open_dataset
from training.engine import evaluate, train_one_epoch
from training.errors import SettingError
from training.metrics import Tally
from training.models import Classifier, architecture
from training.normalization import Normalization
from training.optim import schedule, sgd
from training.options import FitOptions, resolve
from training.progress import Bar, track
from training.transforms import EvalTransform, TrainTransform
from training.weights import load_weights, read_weights


@dataclass(frozen=True)
class Summary:
    """How a run ended: summary.json.

    Attributes:
        run: its folder.
        architecture: of the network.
        best_epoch: the one whose weights are the best checkpoint, from 1.
        val_accuracy: of the best checkpoint, on the split it was chosen by.
        test_accuracy, test_top5_accuracy: of the best checkpoint, on images that nothing was chosen by.
        test_images: how many those are.
        epochs: how many were run.
        seconds: of training and evaluation.
    """

    run: str
    architecture: str
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    test_top5_accuracy: float
    test_images: int
    epochs: int
    seconds: float


def fit(options: FitOptions, say: Callable[[str], None]) -> Summary:
    """Train, keeping the checkpoint that is best on val, then score that one once on test.

    Args:
        options: what to train on what.
        say: prints a line.

    Raises:
        TrainingError: one of `errors.py`, before any file is written where that is possible.
    """
    design = architecture(options.arch)
    dataset = _checked_data(options, say)
    config = resolve(options, design, dataset)
    torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    device = torch.device(config.run.device)
    model = design.build(len(dataset.classes))
    if options.init_weights:
        _transfer(model, options.init_weights, say)
    folder = make_run_folder(options.output, dataset.name, design.name)
    run_config.write_config(folder, config)
    _write_splits(folder, dataset, Path(options.data))
    say(_opening(config, model, dataset, folder))

    started = time.monotonic()
    best = _learn(config, model.to(device), dataset, folder, device)
    model.load_state_dict(best.model)
    test = _score(config, model, dataset, device)
    summary = Summary(
        run=str(folder),
        architecture=design.name,
        best_epoch=best.epoch,
        val_accuracy=best.val_accuracy,
        test_accuracy=test.accuracy(1),
        test_top5_accuracy=test.accuracy(5),
        test_images=test.images,
        epochs=config.optimization.epochs,
        seconds=round(time.monotonic() - started, 2),
    )
    (folder / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def _learn(
    config: RunConfig, model: Classifier, dataset: Dataset, folder: Path, device: torch.device
) -> Checkpoint:
    """Every epoch; returns the best checkpoint, which is in the folder too."""
    told, checkpoints = config.optimization, folder / "checkpoints"
    train_batches = Batches(
        dataset.train,
        TrainTransform(config.preprocessing, config.augmentation.crop, config.augmentation.mirror),
        told.batch_size,
        shuffle=True,
        workers=config.run.workers,
        seed=config.run.seed,
    )
    val_batches = Batches(
        dataset.val, EvalTransform(config.preprocessing), told.batch_size, workers=config.run.workers
    )
    normalization = Normalization(config.normalization.mean, config.normalization.std).to(device)
    loss_function = nn.CrossEntropyLoss(label_smoothing=told.label_smoothing)
    plain_loss = nn.CrossEntropyLoss()
    optimizer = sgd(model, told.learning_rate, told.weight_decay, told.momentum)
    steps = len(train_batches)
    scheduler = schedule(optimizer, told.epochs * steps, told.warmup_epochs * steps)
    best = 0.0
    with Bar(told.epochs * len(dataset.train), "training") as bar:
        for epoch in range(1, told.epochs + 1):
            bar.describe(f"epoch {epoch}/{told.epochs}")
            train_batches.epoch = epoch
            learning_rate = optimizer.param_groups[0]["lr"]
            started = time.monotonic()
            train = train_one_epoch(
                model, normalization, train_batches, loss_function, optimizer, scheduler, device, bar.advance
            )
            seconds = time.monotonic() - started
            val = evaluate(model, normalization, val_batches, plain_loss, device)
            checkpoint = Checkpoint(
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                scheduler=scheduler.state_dict(),
                epoch=epoch,
                val_accuracy=val.accuracy(),
                val_loss=val.loss,
            )
            # Of epochs that are equally right the last one: its learning rate has fallen furthest. The loss
            # on few images would choose an early, unsettled one (97 to 98% on the digits' test, not 99%).
            is_best = val.accuracy() >= best
            if is_best:
                best = val.accuracy()
                save_checkpoint(checkpoints / "best.pt", checkpoint)
            save_checkpoint(checkpoints / "last.pt", checkpoint)
            _log(folder, epoch, train, val, learning_rate, seconds)
            bar.line(
                f"epoch {epoch:>{len(str(told.epochs))}}/{told.epochs}  loss {train.loss:.3f}  "
                f"train {train.accuracy():.2%}  val {val.accuracy():.2%}  "
                f"{train.images / seconds:.0f} images/s{'  best so far' if is_best else ''}"
            )
    return load_checkpoint(checkpoints / "best.pt")


def _score(config: RunConfig, model: Classifier, dataset: Dataset, device: torch.device) -> Tally:
    batches = Batches(
        dataset.test,
        EvalTransform(config.preprocessing),
        config.optimization.batch_size,
        workers=config.run.workers,
    )
    normalization = Normalization(config.normalization.mean, config.normalization.std).to(device)
    return evaluate(model, normalization, batches, nn.CrossEntropyLoss(), device)


def make_run_folder(output: Path | None, data: str, arch: str) -> Path:
    """A new, empty folder with `checkpoints/` in it: `output`, or one named after the time under runs/.

    Raises:
        SettingError: `output` is there already and not empty, or can't be made.
    """
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = output or Path("runs", f"{data}-{arch}-{stamp}")
    attempt = 1
    while output is None and folder.exists():
        attempt += 1
        folder = Path("runs", f"{data}-{arch}-{stamp}-{attempt}")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise SettingError(f"--output is {folder}, which isn't empty; expected a new folder")
        (folder / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise SettingError(f"the run's folder {folder} can't be made: {error.strerror}") from error
    return folder


def _checked_data(options: FitOptions, say: Callable[[str], None]) -> Dataset:
    dataset = open_dataset(options.data, options.skip_broken, partial(track, title="checking images"))
    for note in dataset.notes:
        say(note)
    return dataset


def _write_splits(folder: Path, dataset: Dataset, root: Path) -> None:
    """Leave splits.json: which files are val and test, relative to the data folder; train is the rest."""
    files = {
        name: [source.relative_to(root).as_posix() for source in split.sources]
        for name, split in (("val", dataset.val), ("test", dataset.test))
        if not isinstance(split.sources, np.ndarray)
    }
    if files:
        text = json.dumps(files, indent=0, ensure_ascii=True) + "\n"
        (folder / "splits.json").write_text(text, encoding="utf-8")


def _transfer(model: Classifier, path: Path, say: Callable[[str], None]) -> None:
    took_head = load_weights(model, read_weights(path), str(path), adapt_head=True)
    head = "" if took_head else f"; the head for {model.fc.out_features} classes starts at random"
    say(f"starting from the weights in {path}{head}")


def _opening(config: RunConfig, model: nn.Module, dataset: Dataset, folder: Path) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told, spec = config.optimization, config.preprocessing
    return (
        f"{config.model.architecture} ({parameters:,} parameters) on {dataset.name}: "
        f"{len(dataset.classes)} classes, {len(dataset.train):,} train, {len(dataset.val):,} val and "
        f"{len(dataset.test):,} test images\n"
        f"{told.epochs} epochs in batches of {told.batch_size} at {spec.crop_height} × {spec.crop_width} "
        f"pixels, learning rate up to {told.learning_rate:.4g}, on {config.run.device}; into {folder}"
    )


def _log(folder: Path, epoch: int, train: Tally, val: Tally, learning_rate: float, seconds: float) -> None:
    line: dict[str, Any] = {
        "epoch": epoch,
        "learning_rate": learning_rate,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy(),
        "val_loss": val.loss,
        "val_accuracy": val.accuracy(),
        "val_top5_accuracy": val.accuracy(5),
        "train_seconds": round(seconds, 3),
        "train_images_per_second": round(train.images / seconds, 1),
    }
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
