"""Training against a bare PyTorch loop of the same model, data and augmentation; and the loader alone.

    python -m benchmarks.train_throughput

Both loops train a ResNet-20 of their own on the same CIFAR-10 pictures, from JPEG files through loader
processes, in bfloat16, with SGD and a schedule. The bare one has PyTorch's DataLoader and nothing that could
be left out; Fovea's seeds each batch, counts loss and accuracy, watches for a loss that is no number, and
can go on after a kill. They take turns of some steps each in one process, in changing order, so that what
else the machine does meets both; the figure is the median of the turns' ratios.

The second figure is the loader alone, as many images/s as it gives to nobody, against the training step
alone, on pictures that are there already.
"""

import argparse
import itertools
import os
import random
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks import cifar10
from benchmarks.figures import Figure, conclude
from benchmarks.loader import loader_rate
from benchmarks.machine import describe
from training.augment import Augmentation
from training.config import RunConfig
from training.data import Batches, Dataset, open_dataset
from training.engine import Engine
from training.models import Architecture, Classifier, architecture
from training.normalization import Normalization
from training.options import FitOptions, resolve
from training.preprocessing import training_size
from training.processor import use_processor
from training.setup import build_engine, build_model, build_objective, train_batches
from training.splits import Split
from training.transforms import TrainTransform

BAR, LOADER_BAR = 0.95, 1.5


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cifar10.add_options(parser)
    parser.add_argument("--arch", default="resnet20-cifar")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=1500, help="of each class (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.quick:
        options.pictures, options.batch_size, options.steps, options.turns = 8, 16, 2, 2
    source = cifar10.pictures(options.data, options.work)
    folder = cifar10.some(source, options.work / "throughput", options.pictures, 4)
    dataset = open_dataset(str(folder))
    config = planned(dataset, options)
    device = torch.device(config.run.device)
    print(f"{describe()}; {device}, {config.run.threads} threads, {config.run.workers} workers")

    engine, batches = fovea(config, dataset, device)
    ours, bare = _steps(engine, batches), bare_loop(config, dataset.train, device)
    ratios = []
    for turn in range(options.turns + 1):
        speeds = {}
        for name, loop in (
            (("fovea", ours), ("bare", bare)) if turn % 2 else (("bare", bare), ("fovea", ours))
        ):
            speeds[name] = rate(loop, options.steps, device)
        if turn:  # the first starts workers and chooses kernels
            ratios.append(speeds["fovea"] / speeds["bare"])
            print(
                f"turn {turn}: Fovea {speeds['fovea']:.0f} images/s, bare {speeds['bare']:.0f}, "
                f"ratio {ratios[-1]:.3f}",
                flush=True,
            )
    step = step_rate(engine, batches, options.steps, device)
    batches.close()
    loader = loader_rate(train_batches(config, dataset.train), seconds=0.2 if options.quick else 5.0)
    print(f"loader alone {loader:.0f} images/s, training step alone {step:.0f}")
    conclude(
        Figure("train_throughput_ratio", statistics.median(ratios), BAR),
        Figure("loader_to_step_ratio", loader / step, LOADER_BAR),
        quick=options.quick,
    )


def planned(dataset: Dataset, options: argparse.Namespace) -> RunConfig:
    """The run that both loops make."""
    design: Architecture = architecture(options.arch)
    told = FitOptions(
        str(options.data),
        arch=options.arch,
        batch_size=options.batch_size,
        bf16=True,
        workers=options.workers,
    )
    return resolve(told, design, dataset)


def fovea(config: RunConfig, dataset: Dataset, device: torch.device) -> tuple[Engine, Batches]:
    """What `fovea-train fit` would train with."""
    use_processor(config.run.threads)
    model = build_model(config, print)
    objective = build_objective(config, model, dataset)
    batches = train_batches(config, dataset.train)
    return build_engine(config, model, objective, len(batches), device), batches


def bare_loop(config: RunConfig, split: Split, device: torch.device) -> Iterator[int]:
    """A step of plain PyTorch each time it is asked; gives its images."""
    told = config.optimization
    model: Classifier = build_model(config, print).to(device)
    # PyTorch's types know no memory_format here.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
    model.train()
    normalization = Normalization(config.normalization.mean, config.normalization.std)
    augmentation = Augmentation(config.augmentation, normalization, len(config.data.labels)).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), told.learning_rate, told.momentum, weight_decay=told.weight_decay, nesterov=True
    )
    loader = DataLoader(
        _Pictures(split, config),
        told.batch_size,
        shuffle=True,
        num_workers=config.run.workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=config.run.workers > 0,
        prefetch_factor=4 if config.run.workers else None,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, told.epochs * len(loader))
    while True:
        for pixels, labels in loader:
            inputs, targets = augmentation(
                pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            )
            with torch.autocast(device.type, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
            optimizer.step()
            scheduler.step()
            yield len(pixels)


def rate(loop: Iterator[int], steps: int, device: torch.device) -> float:
    """Images/s over so many steps."""
    _wait(device)
    started = time.perf_counter()
    images = sum(itertools.islice(loop, steps))
    _wait(device)
    return images / (time.perf_counter() - started)


def step_rate(engine: Engine, batches: Batches, steps: int, device: torch.device) -> float:
    """Images/s of the training step alone, over and over on one batch that is in memory."""
    batches.start_batch = 0
    batch = next(iter(batches))

    class Ready:
        """The one batch, as often as asked."""

        epoch = start_batch = 0

        def __len__(self) -> int:
            return steps

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return itertools.repeat(batch, steps)

    engine.next_epoch()
    loop = engine.steps(Ready())  # type: ignore[arg-type]  # what the engine uses of Batches
    return rate(loop, steps, device)


def _steps(engine: Engine, batches: Batches) -> Iterator[int]:
    """Step after step, epoch after epoch; each gives its images."""
    while True:
        yield from engine.steps(batches)
        engine.next_epoch()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Pictures(TorchDataset[tuple[Tensor, int]]):
    """A split as training sees it."""

    def __init__(self, split: Split, config: RunConfig) -> None:
        self.split = split
        spec = training_size(config.preprocessing, config.augmentation.train_size)
        self.transform = TrainTransform(spec, config.augmentation.crop, mirror=False)
        self.draw = random.Random()  # noqa: S311 - augmentation, not secrets

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.split.picture(index, self.transform.least_short_side)
        pixels = np.array(self.transform(picture, self.draw))
        return torch.from_numpy(pixels), int(self.split.labels[index])


if __name__ == "__main__":
    main()
