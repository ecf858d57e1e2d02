"""A linear probe on kept features against full fine-tuning: time and accuracy.

    python -m benchmarks.probe

EfficientNet-lite0 with its ImageNet weights (extra `pretrained`) on 200 + 100 pictures of each class of
CIFAR-10, at 128 pixels. Three things, one after the other, each ending with the accuracy on the same 1,000
test pictures:

- the probe, with nothing kept: every picture once through the frozen network, then the head;
- the probe again: from the features that the first one kept;
- fine-tuning all weights for some epochs, with random crops and mirroring, from the same weights.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.cifar10 import add_options, pictures, some
from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from training.models import architecture
from training.options import FitOptions
from training.probe import ProbeOptions, probe
from training.run_folder import Summary
from training.train import fit

# The probe must be worth it: this many times as fast as fine-tuning when cold, and when warm.
COLD_BAR, WARM_BAR = 2.0, 20.0


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--arch", default="efficientnet-lite0")
    parser.add_argument("--train-images", type=int, default=200, help="of each class, val included")
    parser.add_argument("--test-images", type=int, default=100, help="of each class")
    parser.add_argument("--epochs", type=int, default=5, help="of fine-tuning")
    parser.add_argument("--input-size", type=int, default=128)
    options = parser.parse_args()
    data = some(
        pictures(options.data, options.work),
        options.work / "probe" / "data",
        options.train_images,
        options.test_images,
    )
    start = _start(options)
    cache = options.work / "probe" / "features"
    shutil.rmtree(cache, ignore_errors=True)

    def probed() -> tuple[float, Summary]:
        run = _run(options, "probe")
        return _timed(lambda: probe(ProbeOptions(_options(data, run, start), feature_cache=cache), _say))

    cold_s, cold = probed()
    warm_s, warm = probed()
    run = _run(options, "fine-tune")
    epochs = 1 if options.quick else options.epochs
    full_s, full = _timed(
        lambda: fit(_options(data, run, start, epochs=epochs, learning_rate=0.01, batch_size=32), _say)
    )
    for name, seconds, summary in (
        ("probe, nothing kept", cold_s, cold),
        ("probe, features kept", warm_s, warm),
        (f"fine-tuning, {epochs} epochs", full_s, full),
    ):
        accuracy = summary.test["accuracy"]
        print(f"{name}: {seconds:.1f} s, accuracy {accuracy:.3f} on {summary.test_images:,} pictures")
    print(f"{options.arch} at {options.input_size} pixels; {describe()}")
    conclude(
        Figure("fine_tuning_over_cold_probe_time", full_s / cold_s, COLD_BAR),
        Figure("fine_tuning_over_warm_probe_time", full_s / warm_s, WARM_BAR),
        Figure("probe_accuracy", cold.test["accuracy"], 0.6),
        quick=options.quick,
    )


def _start(options: argparse.Namespace) -> FitOptions:
    """The backbone; of a quick run a small random one, for which nothing has to be installed."""
    if not options.quick:
        return FitOptions("", arch=options.arch, pretrained=True, input_size=options.input_size)
    weights = options.work / "probe" / "random.pth"
    torch.manual_seed(0)
    torch.save(architecture("resnet20-cifar").build(10).state_dict(), weights)
    return FitOptions("", arch="resnet20-cifar", init_weights=weights, input_size=16)


def _options(data: Path, run: Path, start: FitOptions, **learning: float) -> FitOptions:
    given = vars(start) | {"data": str(data), "output": run, "trackers": ()} | learning
    return FitOptions(**given)


def _run(options: argparse.Namespace, name: str) -> Path:
    run: Path = options.work / "probe" / name
    shutil.rmtree(run, ignore_errors=True)
    return run


def _timed(work: Callable[[], Summary]) -> tuple[float, Summary]:
    started = time.monotonic()
    summary = work()
    return time.monotonic() - started, summary


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
