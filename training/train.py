"""One training run, from a data set's name to its folder with checkpoints and scores."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.config import RunConfig, write_config
from training.data import Batches, Dataset, open_dataset
from training.engine import evaluate, train_one_epoch
from training.metrics import Tally
from training.models import Classifier, architecture
from training.normalization import Normalization
from training.optim import schedule, sgd
from training.options import FitOptions, resolve
from training.progress import Bar, track
from training.run_folder import (
    Summary,
    explained,
    log_epoch,
    make_run_folder,
    write_splits,
    write_summary,
)
from training.transforms import EvalTransform, TrainTransform
from training.weights import load_weights, read_weights


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
    with explained(folder):
        write_config(folder, config)
        write_splits(folder, dataset)
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
        write_summary(folder, summary)
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
                epoch=epoch,
                metrics={"loss": val.loss, "accuracy": val.accuracy(), "top5_accuracy": val.accuracy(5)},
                step=epoch * steps,
            )
            # Of epochs that are equally right the last one: its learning rate has fallen furthest. The loss
            # on few images would choose an early, unsettled one (97 to 98% on the digits' test, not 99%).
            is_best = val.accuracy() >= best
            if is_best:
                best = val.accuracy()
                save_checkpoint(checkpoints / "best.pt", checkpoint)
            save_checkpoint(checkpoints / "last.pt", checkpoint)
            log_epoch(folder, epoch, train, val, learning_rate, seconds)
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


def _checked_data(options: FitOptions, say: Callable[[str], None]) -> Dataset:
    dataset = open_dataset(options.data, options.skip_broken, partial(track, title="checking images"))
    for note in dataset.notes:
        say(note)
    return dataset


def _transfer(model: Classifier, path: Path, say: Callable[[str], None]) -> None:
    took_head = load_weights(model, read_weights(path), str(path), adapt_head=True)
    head = "" if took_head else f"; the head for {model.head.out_features} classes starts at random"
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
