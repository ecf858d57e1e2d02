"""Accuracy of one trained network: its checkpoint in PyTorch, its package's files, and the server with them.

    fovea-train fit --recipe cifar-resnet20 --data <cifar10> --epochs 30 --output <run>
    fovea-train export --run <run> --precision int8,fp16 --model-repository <models>
    python -m benchmarks.served_accuracy --run <run> --package <models>/<name>/1

All on the run's test images. The bars are the gates of the export: the checkpoint's accuracy, less one image
in 10,000 for fp32, a tenth of a point for fp16, and half a point for int8. The server runs each file on ONNX
Runtime's CPU provider; of auto, which chooses provider and precision, the accuracy is printed too.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from benchmarks.pinned import pinned_server
from training.evaluate.data import LabelledPictures, run_pictures
from training.evaluate.evaluation import Evaluation, evaluate
from training.evaluate.package import PackageTarget
from training.evaluate.run import RunTarget
from training.evaluate.server import ServerTarget
from training.evaluate.target import Target

# Points of accuracy that a precision may lose.
BARS = {"fp32": 0.01, "fp16": 0.1, "int8": 0.5}


def main() -> None:
    """Score, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of fovea-train fit")
    parser.add_argument("--package", type=Path, required=True, help="<repository>/<name>/<version> of it")
    options = parser.parse_args()
    pictures = run_pictures(options.run)
    checkpoint = _scored("checkpoint", RunTarget(options.run), pictures)
    figures = []
    for precision, bar in BARS.items():
        offline = _scored(f"package, {precision}", PackageTarget(options.package, precision), pictures)
        served = _served(options.package, pictures, f"server, {precision}", "cpu", precision)
        same = float(np.mean(_answers(offline) == _answers(served)))
        print(f"  the package's file and the server choose the same class for {same:.2%} of the images")
        figures.append(
            Figure(
                f"served_{precision}_lost_points",
                100 * (_accuracy(checkpoint) - _accuracy(served)),
                bar,
                at_most=True,
            )
        )
    _served(options.package, pictures, "server, auto", "auto", "auto")
    print(describe())
    conclude(*figures)


def _served(
    package: Path, pictures: LabelledPictures, title: str, execution_provider: str, precision: str
) -> Evaluation:
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    options = ("--model", f"{package.parent.name}:{package.name}", "--execution-provider", execution_provider)
    with (
        pinned_server(package.parents[1], *options, "--precision", precision, core=cores) as server,
        ServerTarget(server.address, None, None) as target,
    ):
        return _scored(title, target, pictures)


def _scored(title: str, target: Target, pictures: LabelledPictures) -> Evaluation:
    found = evaluate(target, pictures)
    if found.predictions.failures:
        raise SystemExit(f"{title}: {len(found.predictions.failures)} images weren't answered")
    print(f"{title}: {_accuracy(found):.2%} of {len(found.targets):,} images", flush=True)
    return found


def _accuracy(found: Evaluation) -> float:
    return found.numbers["top1_accuracy"]


def _answers(found: Evaluation) -> NDArray[np.int64]:
    return found.predicted[np.argsort(found.predictions.indices)]


if __name__ == "__main__":
    main()
