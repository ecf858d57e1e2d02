"""One training run, from a data set's name to its folder with checkpoints and scores."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from training.checkpoint import Checkpoint, load_checkpoint, remove_leftovers
from training.class_disjoint import hold_out
from training.compiling import check_compiler
from training.config import RunConfig, read_config, write_config
from training.data import Dataset, open_dataset
from training.distributed import World, joined
from training.errors import RunError, SettingError
from training.evaluate.calibrate import calibrate, described
from training.finetune import stages_to_freeze
from training.fingerprint import fingerprint
from training.models import Classifier, architecture
from training.normalization import Normalization
from training.objective import Objective
from training.options import FitOptions, resolve
from training.processor import use_processor
from training.progress import track
from training.retrieval import RETRIEVES_BY, check_pairs
from training.run_folder import (
    Summary,
    explained,
    forget_epochs,
    make_run_folder,
    write_splits,
    write_summary,
)
from training.run_loop import RunLoop
from training.setup import (
    Say,
    build_engine,
    build_model,
    build_objective,
    scored_batches,
    steps_an_epoch,
    train_batches,
)
from training.trackers import check_trackers


def fit(options: FitOptions, say: Say) -> Summary:
    """Train, keeping the checkpoint that is best on val, then score that one once on test.

    Under torchrun several processes do it together.

    Args:
        options: what to train on what.
        say: prints a line.

    Raises:
        TrainingError: one of `errors.py`, before any file is written where that is possible.
    """
    check_trackers(options.trackers)
    with joined(options.device) as world:
        say = say if world.first else _silent
        config, dataset = planned(options, say, world)
        learners = _learners(config, dataset, say)
        train_batches(config, dataset.train, world)  # what can't be batched is said before a folder is made
        folder = world.shared(lambda: make_run_folder(options.output, dataset.name, options.arch))
        with explained(folder):
            if world.first:
                write_config(folder, config)
                write_splits(folder, dataset)
            say(_opening(config, learners[0], dataset, folder))
            return _run(config, dataset, learners, folder, world, None, say)


def planned(options: FitOptions, say: Say, world: World | None = None) -> tuple[RunConfig, Dataset]:
    """What a run with these options would be, to the last value, and its data.

    Raises:
        TrainingError: one of `errors.py`.
    """
    world = world or World()
    design = architecture(options.arch)
    dataset = world.shared(lambda: _open(options.data, options.skip_broken, options.holdout_classes, say))
    dropout = _dropout(design.build)
    config = world.shared(lambda: resolve(options, design, dataset, dropout=dropout, world_size=world.size))
    return config, dataset


def resume(folder: Path, given: Callable[[RunConfig], None], say: Say) -> Summary:
    """Go on with a run that was stopped, from its last checkpoint, to the very weights it would have had.

    Args:
        folder: the run's.
        given: raises where what the user gave besides isn't what the run was started with.
        say: prints a line.

    Raises:
        RunError: it isn't a run, it has come to its end, or it can't be gone on with here.
        SettingError: `given` says so, or the data have changed.
    """
    config = read_config(folder)
    given(config)
    if not config.data.fingerprint:
        raise RunError(f"{folder}: was made by a version whose runs can't be resumed; start a new one")
    if (folder / "summary.json").exists():
        raise RunError(f"{folder}: has come to its end; expected a run that was stopped")
    check_trackers(config.run.trackers)
    with joined(config.run.device) as world:
        say = say if world.first else _silent
        _check_machine(config, world, folder, say)
        data = config.data
        dataset = world.shared(lambda: _open(data.source, data.skip_broken, data.holdout_classes, say))
        _check_data(config, dataset, folder)
        last = folder / "checkpoints" / "last.pt"
        saved = load_checkpoint(last) if last.exists() else None
        if saved is not None and not saved.progress:
            raise RunError(f"{last}: holds no more than weights; expected a checkpoint of fovea-train fit")
        learners = _learners(config, dataset, say)
        with explained(folder):
            if world.first:
                remove_leftovers(folder / "checkpoints")
                forget_epochs(folder, saved.epoch if saved else 0)
                write_splits(folder, dataset)
            say(_opening(config, learners[0], dataset, folder))
            step, epoch = (saved.step, saved.epoch) if saved else (0, 0)
            say(f"going on after step {step}, with {epoch} epoch{'s' * (epoch != 1)} done")
            return _run(config, dataset, learners, folder, world, saved, say)


def _run(
    config: RunConfig,
    dataset: Dataset,
    learners: tuple[Classifier, Objective],
    folder: Path,
    world: World,
    saved: Checkpoint | None,
    say: Say,
) -> Summary:
    """Every epoch that is left, then the score on test and the temperature on val."""
    model, objective = learners
    use_processor(config.run.threads)
    device = world.device(config.run.device)
    batches = train_batches(config, dataset.train, world)
    steps = steps_an_epoch(batches, config.optimization.accumulate)
    engine = build_engine(config, model, objective, steps, device, world)
    loop = RunLoop(config, folder, engine, batches, scored_batches(config, dataset.val, world))
    if saved is not None:
        loop.resume(saved)
        del saved
    loop.run()
    best = world.shared(lambda: load_checkpoint(folder / "checkpoints" / "best.pt"))
    model.load_state_dict(best.model)
    test = _score(config, model, objective, dataset, device, world)

    def finish() -> Summary:
        summary = Summary(
            run=str(folder),
            architecture=config.model.architecture,
            best_epoch=best.epoch,
            selects_by=best.selects_by,
            val=_measured(best.metrics),
            test=test,
            test_images=len(dataset.test),
            epochs=engine.epoch - 1,
            seconds=round(loop.seconds, 2),
        )
        temperature = calibrate(folder, "best", config.run.device)
        if temperature is not None:
            say(described(temperature))
        write_summary(folder, summary)
        return summary

    return world.shared(finish)


def _learners(config: RunConfig, dataset: Dataset, say: Say) -> tuple[Classifier, Objective]:
    """The network and its objective; what can't be trained so is said here, before there is a folder."""
    model = build_model(config, say)
    objective = build_objective(config, model, dataset)
    if config.transfer.freeze:
        stages_to_freeze(model, config.transfer.freeze)
    if config.optimization.compile:
        check_compiler(torch.device(config.run.device))
    if objective.selects_by == RETRIEVES_BY:
        check_pairs(dataset)
    return model, objective


def _score(
    config: RunConfig,
    model: Classifier,
    objective: Objective,
    dataset: Dataset,
    device: torch.device,
    world: World,
) -> dict[str, float]:
    normalization = Normalization(config.normalization.mean, config.normalization.std).to(device)
    batches = scored_batches(config, dataset.test, world)
    scores = objective.validate(model, normalization, batches, device)
    batches.close()
    return _measured(scores)


def _measured(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if not math.isnan(value)}


def _open(data: str, skip_broken: bool, holdout: int | tuple[str, ...], say: Say) -> Dataset:
    dataset = open_dataset(data, skip_broken, partial(track, title="checking images"))
    for note in dataset.notes:
        say(note)
    return hold_out(dataset, holdout) if holdout else dataset


def _dropout(build: Callable[[int], Classifier]) -> float:
    """The architecture's own; nothing is computed for it."""
    with torch.device("meta"):
        return build(2).dropout


def _check_machine(config: RunConfig, world: World, folder: Path, say: Say) -> None:
    told = config.run
    if world.size != told.world_size:
        raise SettingError(
            f"{folder}: was started with {told.world_size} process{'es' * (told.world_size != 1)}, this is "
            f"{world.size}; expected the same number, torchrun --nproc-per-node {told.world_size}"
        )
    if told.device == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"{folder}: was started on a CUDA device, and this PyTorch finds none")
    if told.torch != str(torch.__version__):
        say(
            f"this is PyTorch {torch.__version__}, the run was started with {told.torch}: it goes on, but "
            "the last bits of its weights may differ"
        )


def _check_data(config: RunConfig, dataset: Dataset, folder: Path) -> None:
    found = fingerprint(dataset)
    if found != config.data.fingerprint:
        sizes = [len(split) for split in (dataset.train, dataset.val, dataset.test)]
        told = config.data
        raise SettingError(
            f"{told.source}: isn't what the run in {folder} was started on: it has {sizes[0]:,} train, "
            f"{sizes[1]:,} val and {sizes[2]:,} test images, the run {told.train_images:,}, "
            f"{told.val_images:,} and {told.test_images:,}, or their names, labels or content differ; "
            "expected the same data, or start a new run"
        )


def _silent(_line: str) -> None:
    pass


def _opening(config: RunConfig, model: nn.Module, dataset: Dataset, folder: Path) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told, spec = config.optimization, config.preprocessing
    together = f" × {told.accumulate} accumulated" * (told.accumulate > 1)
    together += f" × {config.run.world_size} processes" * (config.run.world_size > 1)
    return (
        f"{config.model.architecture} ({parameters:,} parameters) on {dataset.name}: "
        f"{len(dataset.classes)} classes, {len(dataset.train):,} train, {len(dataset.val):,} val and "
        f"{len(dataset.test):,} test images\n"
        f"{told.epochs} epoch{'s' * (told.epochs != 1)} in batches of {told.batch_size}{together} at "
        f"{spec.crop_height} × {spec.crop_width} pixels, learning rate up to {told.learning_rate:.4g} "
        f"({told.optimizer}), on {config.run.device}; into {folder}{_frozen(config)}"
    )


def _frozen(config: RunConfig) -> str:
    """A line on what doesn't learn; empty where all of it does."""
    transfer = config.transfer
    if not transfer.freeze:
        return ""
    line = f"\nall stages up to {transfer.freeze} keep their weights"
    if not transfer.unfreeze_at_epoch:
        return line
    if transfer.unfreeze_at_epoch > config.optimization.epochs:
        return f"{line} to the end: they would learn from epoch {transfer.unfreeze_at_epoch} on"
    return f"{line} until epoch {transfer.unfreeze_at_epoch} begins"
