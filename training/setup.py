"""A run's configuration → its network, objective, batches and engine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.augment import Augmentation
from training.class_batches import class_batches_order
from training.compiling import compile_learner
from training.config import RunConfig
from training.data import Batches, Dataset
from training.distributed import World
from training.ema import AveragedWeights
from training.engine import Engine, Stepping
from training.finetune import freeze, freeze_heads, layer_wise_learning_rates
from training.learner import Learner
from training.losses import METRIC_LOSSES, loss_settings, make_objective
from training.models import Classifier, architecture
from training.models.heads import with_embedding
from training.normalization import Normalization
from training.objective import Objective
from training.optim import make_optimizer, schedule
from training.preprocessing import training_size
from training.splits import SINGLE_LABEL, Split
from training.transforms import EvalTransform, TrainTransform
from training.weights import load_weights, read_weights

Say = Callable[[str], None]


def build_model(config: RunConfig, say: Say) -> Classifier:
    """The network with the weights that it starts from, on the CPU.

    Raises:
        TrainingError: the weights can't be had, or don't fit.
    """
    torch.manual_seed(config.run.seed)
    model = architecture(config.model.architecture).build(len(config.data.labels))
    if config.model.pretrained:
        from training.pretrained import load_pretrained

        load_pretrained(model, config.model.architecture, config.model.pretrained_version or None, say)
    if config.model.init_weights:
        path = config.model.init_weights
        took_head = load_weights(model, read_weights(Path(path)), path, adapt_head=True)
        head = "" if took_head else f"; the head for {model.classes} classes starts at random"
        say(f"starting from the weights in {path}{head}")
    model.dropout = config.model.dropout
    return with_embedding(model, config.embedding.pooling, config.embedding.projection or None)


def build_objective(config: RunConfig, model: Classifier, dataset: Dataset) -> Objective:
    """What is made small; its parameters, where it has any, start at random.

    Raises:
        SettingError: the loss doesn't suit the task or other settings.
    """
    torch.manual_seed(config.run.seed)
    told, classes = config.optimization, len(config.data.labels)
    weights = torch.from_numpy(dataset.class_weights()[:classes]) if told.class_weights else None
    return make_objective(
        config.embedding.loss,
        classes=classes,
        embedding_dimension=model.embedding_dimension,
        class_weights=weights,
        label_smoothing=told.label_smoothing,
        task=dataset.task,
        class_disjoint=bool(config.data.holdout_classes),
        normalization=Normalization(config.normalization.mean, config.normalization.std),
        **loss_settings(config.embedding.loss_settings),
    )


def train_batches(config: RunConfig, split: Split, world: World | None = None) -> Batches:
    """What training learns from: cut at random in the loader; the rest is done on the device (`augment`).

    Raises:
        SettingError: the batch size doesn't suit the images per class.
    """
    world = world or World()
    spec = training_size(config.preprocessing, config.augmentation.train_size)
    batch_size, grouped = config.optimization.batch_size, config.data.images_per_class
    order = None
    if grouped:
        order = _grouped(split, batch_size * world.size, grouped, config.run.seed)
        order(1)  # what can't be grouped is said before anything is written
    return Batches(
        split,
        TrainTransform(spec, config.augmentation.crop, mirror=False),
        batch_size,
        shuffle=True,
        workers=config.run.workers,
        seed=config.run.seed,
        rank=world.rank,
        world_size=world.size,
        order=order,
    )


def scored_batches(config: RunConfig, split: Split, world: World | None = None) -> Batches:
    """A split, or this process's part of it, as the service would see it."""
    world = world or World()
    return Batches(
        split,
        EvalTransform(config.preprocessing),
        config.optimization.batch_size,
        workers=config.run.workers,
        rank=world.rank,
        world_size=world.size,
    )


def build_engine(
    config: RunConfig,
    model: Classifier,
    objective: Objective,
    steps_an_epoch: int,
    device: torch.device,
    world: World | None = None,
) -> Engine:
    """Everything that learns, on the device, at the beginning of the run.

    Raises:
        SettingError: torch.compile doesn't work here, or there is no such stage to freeze.
    """
    told, transfer = config.optimization, config.transfer
    if config.embedding.loss in METRIC_LOSSES:
        freeze_heads(model)
    if transfer.freeze and not transfer.unfreeze_at_epoch:
        freeze(model, transfer.freeze)
    if told.channels_last:
        _channels_last(model)
    learner = Learner(model, objective).to(device)
    # What is frozen for a while is the optimizer's from the start; without gradients it rests.
    groups = layer_wise_learning_rates(model, told.learning_rate, transfer.layer_decay)
    own = {"params": list(objective.parameters()), "lr": told.learning_rate, "name": "objective"}
    optimizer = make_optimizer(
        told.optimizer,
        [*groups, own],
        learning_rate=told.learning_rate,
        weight_decay=told.weight_decay,
        momentum=told.momentum,
    )
    if transfer.unfreeze_at_epoch:
        freeze(model, transfer.freeze)
    scheduler = schedule(optimizer, told.epochs * steps_an_epoch, told.warmup_epochs * steps_an_epoch)
    ema = AveragedWeights(model, told.ema_decay) if told.ema_decay else None
    if told.compile:
        compile_learner(learner, device)
    normalization = Normalization(config.normalization.mean, config.normalization.std)
    return Engine(
        learner,
        Augmentation(config.augmentation, normalization, len(config.data.labels)).to(device),
        optimizer,
        scheduler,
        Stepping(
            seed=config.run.seed,
            accumulate=told.accumulate,
            clip_norm=told.clip_norm,
            bf16=told.bf16,
            channels_last=told.channels_last,
            single_label=config.data.task == SINGLE_LABEL,
        ),
        device,
        world=world,
        ema=ema,
    )


def steps_an_epoch(batches: Batches, accumulate: int) -> int:
    """Optimizer steps: the last of an epoch may have fewer batches."""
    return -(-len(batches) // accumulate)


def _grouped(split: Split, batch_size: int, images_per_class: int, seed: int) -> Callable[[int], list[int]]:
    """Epoch → an order in groups of a class, as long as the split, so that all epochs have as many steps."""
    labels = split.labels.astype(np.int64)

    def order(epoch: int) -> list[int]:
        indices: list[int] = []
        while len(indices) < len(labels):
            # Where one draw is too short, that of an epoch that no run comes to goes on from it.
            indices += class_batches_order(labels, batch_size, images_per_class, seed, epoch)
            epoch += 1_000_000
        return indices[: len(labels)]

    return order


def _channels_last(model: nn.Module) -> None:
    # PyTorch's types know no memory_format here.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
