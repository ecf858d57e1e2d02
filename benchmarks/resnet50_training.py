"""A ResNet-50 trained from scratch in minutes on one core: what the engines' accuracy is measured on.

Full-size pictures would be too dear, so they grow while it learns (Touvron et al. 2019, arXiv:1906.06423, on
why the last steps belong to the size that is served): most pictures at 64 pixels, then 128, the last at 224.
Forward passes are in bfloat16, which a processor with AMX runs three times as fast; the weights stay float32.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.preprocess import Preprocessing
from training.augment import Augmentation
from training.config import AugmentationConfig
from training.data import Batches, Split
from training.engine import Engine, Stepping
from training.image_files import find_images
from training.learner import Learner
from training.metrics import Tally
from training.models import Classifier, architecture
from training.models.resnet import Bottleneck
from training.normalization import Normalization
from training.objective import CrossEntropy
from training.optim import make_optimizer, schedule
from training.splits import IMAGENET_MEAN, IMAGENET_STD
from training.transforms import EvalTransform, TrainTransform

SERVED = Preprocessing(resize_short_side=256, crop_height=224, crop_width=224)
_TIMED_STEPS = 3


@dataclass(frozen=True)
class Phase:
    """One part of the training.

    Attributes:
        spec: the input's size.
        share: of the time.
        batch_size: pictures a step.
        learning_rate: the highest; half a cosine brings it to zero.
    """

    spec: Preprocessing
    share: float
    batch_size: int
    learning_rate: float


PHASES = (
    Phase(Preprocessing(64, 64, 64), 0.45, 64, 0.05),
    Phase(Preprocessing(146, 128, 128), 0.30, 32, 0.02),
    Phase(SERVED, 0.25, 16, 0.005),
)


@dataclass
class Record:
    """How far a network is, and how it came there: trained.pt.

    Attributes:
        classes: in the order of the logits.
        phases: how many of `PHASES` are done.
        pictures: seen in them together, repeats included.
        seconds: of one core's time.
        model: state dict.
    """

    classes: tuple[str, ...]
    phases: int
    pictures: int
    seconds: float
    model: dict[str, Tensor]


def read_split(folder: Path, classes: Sequence[str]) -> Split:
    """The pictures in `folder`/<class>, for the classes given."""
    paths = [find_images(folder / name).paths for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in paths])
    return Split([file for files in paths for file in files], labels.astype(np.int64))


def train(split: Split, classes: Sequence[str], minutes: float, file: Path) -> tuple[Classifier, Record]:
    """Train, from where `file` says that an earlier try has come to.

    Args:
        split: the pictures to learn from.
        classes: in the order of the labels.
        minutes: of one core's time, which other work on the machine doesn't shorten.
        file: written after each phase.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = _fresh(len(classes))
    record = Record(tuple(classes), 0, 0, 0.0, model.state_dict())
    if file.exists():
        record = Record(**torch.load(file, weights_only=True))
        model.load_state_dict(record.model)
    for number, phase in enumerate(PHASES[record.phases :], record.phases):
        started = time.process_time()
        seconds = _step_seconds(copy.deepcopy(model), split, phase)
        steps = max(1, round(minutes * 60 * phase.share / seconds))
        shown = _drawn(split, steps * phase.batch_size, seed=number)
        print(f"{phase.spec.crop_height} pixels: {steps} steps of {phase.batch_size}", flush=True)
        loss, accuracy = _run(model, shown, phase, number, steps // 10, _spoken(len(shown)))
        print(f"  loss {loss:.3f}, accuracy while learning {accuracy:.3f}", flush=True)
        record = Record(
            classes=tuple(classes),
            phases=number + 1,
            pictures=record.pictures + len(shown),
            seconds=record.seconds + time.process_time() - started,
            model=model.state_dict(),
        )
        torch.save(vars(record), file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)
    torch.set_num_threads(threads)
    return model.eval(), record


def score(model: Classifier, split: Split) -> Tally:
    """In float32, of the pictures as they are served."""
    normalization, tally = Normalization(IMAGENET_MEAN, IMAGENET_STD), Tally()
    model.eval()
    with torch.inference_mode():
        for pixels, labels in Batches(split, EvalTransform(SERVED), 16):
            logits = model(normalization(pixels))
            tally.add(logits, labels, float(nn.functional.cross_entropy(logits, labels)))
    return tally


def _fresh(classes: int) -> Classifier:
    model = architecture("resnet50").build(classes)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            # Each block starts as the identity (Goyal et al. 2017, arXiv:1706.02677): it learns sooner.
            nn.init.zeros_(module.bn3.weight)
    # PyTorch's types know no memory_format here.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return] # not in torch's stub


def _run(
    model: Classifier, shown: Split, phase: Phase, seed: int, warmup: int, advance: Callable[[int], None]
) -> tuple[float, float]:
    """One pass over pictures whose order is drawn already; the mean loss, and the accuracy."""
    batches = Batches(
        shown, TrainTransform(phase.spec, crop="padded", mirror=False), phase.batch_size, seed=seed
    )
    groups = [{"params": list(model.parameters())}]
    optimizer = make_optimizer("sgd", groups, learning_rate=phase.learning_rate, weight_decay=5e-4)
    told = AugmentationConfig(crop="padded", mirror=True)
    engine = Engine(
        Learner(model, CrossEntropy()),
        Augmentation(told, Normalization(IMAGENET_MEAN, IMAGENET_STD), model.head.out_features),
        optimizer,
        schedule(optimizer, len(batches), warmup),
        Stepping(seed=seed, bf16=True, channels_last=True),
        torch.device("cpu"),
    )
    for images in engine.steps(batches):
        advance(images)
    return engine.check()


def _step_seconds(model: Classifier, split: Split, phase: Phase) -> float:
    """How much of one core's time a step takes, from a few with a network that is thrown away."""
    _run(model, _drawn(split, phase.batch_size, seed=0), phase, 0, 0, lambda _count: None)
    shown = _drawn(split, _TIMED_STEPS * phase.batch_size, seed=0)
    started = time.process_time()
    _run(model, shown, phase, 0, 0, lambda _count: None)
    return (time.process_time() - started) / _TIMED_STEPS


def _drawn(split: Split, count: int, seed: int) -> Split:
    """`count` pictures in random order; each comes again only after all others."""
    draw = np.random.default_rng(seed)
    rounds = [draw.permutation(len(split)) for _ in range(-(-count // len(split)))]
    order = np.concatenate(rounds)[:count]
    return Split([split.sources[index] for index in order.tolist()], split.labels[order])


def _spoken(total: int) -> Callable[[int], None]:
    """Says every minute how far it is."""
    done, said = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said > 60:
            said = time.monotonic()
            print(f"  {done:,} of {total:,} pictures", flush=True)

    return advance
