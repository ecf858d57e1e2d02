"""A linear probe: a frozen network's features once, a head in seconds, both as an ordinary run."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.config import RunConfig, read_config
from training.data import Dataset, open_dataset
from training.errors import SettingError
from training.feature_cache import default_cache
from training.features import Backbone, content_digests, features
from training.linear_probe import Probe, fit_probe
from training.models import Classifier, architecture
from training.options import FitOptions, resolve
from training.probe_run import leave_run
from training.processor import use_processor
from training.progress import track
from training.run_folder import Summary, explained, make_run_folder
from training.run_model import load_run_model
from training.setup import build_model
from training.splits import MULTI_LABEL, Split
from training.views import View

Say = Callable[[str], None]
_BATCH_SIZE = 32


@dataclass(frozen=True)
class ProbeOptions:
    """What the user asked for; each is documented where the command line declares it, in `cli_probe.py`.

    Attributes:
        fit: what `fovea-train fit` takes too.
        run: a run whose network is the backbone.
        views: of each training image.
        feature_cache: None for `feature_cache.default_cache`.
    """

    fit: FitOptions
    run: Path | None = None
    views: int = 1
    feature_cache: Path | None = None


def probe(options: ProbeOptions, say: Say) -> Summary:
    """Learn a head on a frozen network, and leave both as a run that can be scored, reported on and exported.

    Raises:
        TrainingError: one of `errors.py`, before any file of the run is written where that is possible.
    """
    asked = _from_run(options) if options.run else options.fit
    if not options.run and not asked.pretrained and not asked.init_weights:
        raise SettingError(
            "a probe learns a head on a network that knows something already; expected --pretrained, "
            "--init-weights or --run"
        )
    design = architecture(asked.arch)
    dataset = open_dataset(asked.data, asked.skip_broken, partial(track, title="checking images"))
    for note in dataset.notes:
        say(note)
    config = resolve(replace(asked, epochs=1, warmup_epochs=0), design, dataset)
    use_processor(config.run.threads)
    model = _network(options, config, len(dataset.classes), say).eval()
    linear = model.head  # a network without one is told of before its features are computed
    folder = make_run_folder(asked.output, dataset.name, f"{design.name}-probe")
    try:
        with explained(folder):
            say(
                f"{design.name}, frozen, on {dataset.name}: {len(dataset.classes)} classes, "
                f"{len(dataset.train):,} train, {len(dataset.val):,} val and {len(dataset.test):,} test "
                f"images; into {folder}"
            )
            started = time.monotonic()
            vectors = _Features(options, config, model, say)
            train, val = vectors.of(dataset.train, "train", options.views), vectors.of(dataset.val, "val")
            embedded = time.monotonic()
            head = fit_probe(train, val, len(dataset.classes), class_weights=_class_weights(asked, dataset))
            _put(head, linear)
            say(_told(head, len(train[0]), embedded - started, time.monotonic() - embedded))
            test = vectors.of(dataset.test, "test")
            seconds = time.monotonic() - started
            summary = leave_run(folder, config, dataset, model, head, (train, val, test), seconds, say)
            # With weights for the classes a head gives accuracy away on purpose.
            if dataset.task != MULTI_LABEL and not asked.class_weights:
                _warn_of_nothing_learned(summary.val["accuracy"], dataset, say)
            return summary
    except BaseException:
        # Removes only what nothing was left in.
        with suppress(OSError):
            (folder / "checkpoints").rmdir()
            folder.rmdir()
        raise


class _Features:
    """Each split's features and targets, on the device where the head is fitted."""

    def __init__(self, options: ProbeOptions, config: RunConfig, model: Classifier, say: Say) -> None:
        self._config, self._say = config, say
        self._cache = options.feature_cache or default_cache()
        self._device = torch.device(config.run.device)
        embedding = config.embedding
        self._backbone = Backbone(
            model,
            f"{config.model.architecture}, pooling {embedding.pooling}, projection {embedding.projection}",
            config.preprocessing,
            config.normalization.mean,
            config.normalization.std,
        )

    def of(self, split: Split, title: str, views: int = 1) -> tuple[Tensor, Tensor]:
        """Float32 [views × images, dimension], and int64 [views × images] or float32 [.., classes]."""
        digests = content_digests(split, f"reading {title}")
        spec = self._config.preprocessing
        found = [
            features(
                self._backbone,
                split,
                digests,
                View(spec, number),
                cache=self._cache,
                device=self._device,
                workers=self._config.run.workers,
                batch_size=_BATCH_SIZE,
                say=self._say,
                title=f"{title} features" + (f", view {number + 1} of {views}" if views > 1 else ""),
            )
            for number in range(views)
        ]
        labels = torch.from_numpy(split.labels)
        targets = labels.float() if labels.ndim == 2 else labels
        repeated = torch.cat([targets] * views)
        return torch.cat(found).to(self._device), repeated.to(self._device)


def _from_run(options: ProbeOptions) -> FitOptions:
    """The run's network and its preprocessing, for the user's data."""
    assert options.run is not None  # noqa: S101 - asked only then
    asked, config = options.fit, read_config(options.run)
    if asked.pretrained or asked.init_weights:
        raise SettingError("--run is given beside other weights; expected one backbone")
    spec = config.preprocessing
    return replace(
        asked,
        arch=config.model.architecture,
        init_weights=options.run / "checkpoints" / "best.pt",
        pooling=config.embedding.pooling,
        projection=config.embedding.projection,
        input_size=spec.crop_height,
        resize_size=spec.resize_short_side,
        interpolation=spec.interpolation,
        jpeg_scaled_decode=spec.jpeg_scaled_decode,
        mean=config.normalization.mean,
        std=config.normalization.std,
    )


def _network(options: ProbeOptions, config: RunConfig, classes: int, say: Say) -> Classifier:
    if options.run is None:
        return build_model(config, say)
    loaded = load_run_model(options.run)
    say(f"the backbone is {options.run}'s, of its epoch {loaded.checkpoint.epoch}")
    loaded.model.replace_head(classes)
    return loaded.model


def _class_weights(asked: FitOptions, dataset: Dataset) -> Tensor | None:
    return torch.from_numpy(dataset.class_weights()) if asked.class_weights else None


def _put(head: Probe, linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        linear.bias.copy_(head.bias)


def _told(head: Probe, vectors: int, embedding_seconds: float, solving_seconds: float) -> str:
    best = head.best
    return (
        f"features of {vectors:,} views and of val after {embedding_seconds:.1f} s; {len(head.trials)} heads "
        f"in {solving_seconds:.1f} s, the best on val with weight decay {best.weight_decay:.3g}: "
        f"{best.val_score:.2%}"
    )


def _warn_of_nothing_learned(accuracy: float, dataset: Dataset, say: Say) -> None:
    counts = np.bincount(dataset.val.labels, minlength=len(dataset.classes))
    largest = int(counts.argmax())
    share = counts[largest] / counts.sum()
    if accuracy <= share:
        say(
            f"warning: the head learned nothing that shows: its val accuracy of {accuracy:.2%} is no better "
            f"than saying {dataset.classes[largest]!r} of every image ({share:.2%}); try another backbone, "
            "more images, or fovea-train fit"
        )
