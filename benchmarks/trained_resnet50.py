"""A ResNet-50 with trained weights as a package of fp32, bf16 and int8, and how far the precisions agree.

    python -m benchmarks.trained_resnet50

No published ResNet-50 comes with the packages that are installed here, and of a random network the agreement
says nothing. So this one learns five kinds of pictures of CIFAR-10 (re-encoded as JPEG), seen at 224 × 224 as
they are served, in `--minutes` of one core's time. What is there already in `--output` is used again: a
training that was stopped goes on after its last phase; remove resnet50.pt and models/ to begin anew.

Calibrated on training pictures, measured on test pictures, all through the service's own preprocessing.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cifar10
from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from benchmarks.resnet50_training import SERVED, read_split, score, train
from training.agreement import GATES, MAX_ACCURACY_LOSS, Agreement, agreement
from training.calibration import MAX_CALIBRATION_IMAGES
from training.data import Split
from training.export import export_package
from training.package import Provenance
from training.parity_images import split_images, spread
from training.runtime import cpu_outputs, openvino_outputs
from training.splits import IMAGENET_MEAN, IMAGENET_STD

NAME = "resnet50"
# The kinds that are least like each other: what minutes of one core can tell apart.
CLASSES = ("airplane", "automobile", "frog", "horse", "ship")
PRECISIONS = ("fp32", "int8", "bf16")
EVALUATION_IMAGES = 500
_MIN_ACCURACY = 0.70
_PARITY_IMAGES = 32
_BATCH_SIZE = 8


def main() -> None:
    """Train where nothing is trained yet, export, measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=cifar10.ARCHIVE,
        help="archive of train/<class>/*.jpg and test/<class>/*.jpg (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="of one core, for training (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=cifar10.WORK, help="(%(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = cifar10.pictures(options.data, options.output)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    folder = package(data, options.output, options.minutes)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    measured = {entry["precision"]: Agreement(**entry["agreement"]) for entry in manifest["variants"]}
    if "int8" in measured:
        measured["int8_openvino"] = _int8_on_openvino(folder, _evaluation(data))
    print(f"{folder}: {manifest['provenance']['recipe']}")
    for name, numbers in measured.items():
        print(f"{name}: {numbers}")
    print(describe())
    conclude(*_figures(measured, manifest["provenance"]["metrics"]))


def package(data: Path, output: Path, minutes: float) -> Path:
    """The package's folder; trained and exported where it isn't there yet.

    Args:
        data: folder of train/ and test/.
        output: holds the weights, and the repository models/.
        minutes: of one core's time, for training.
    """
    repository = output / "models"
    if (repository / NAME).is_dir():
        return max((repository / NAME).iterdir(), key=lambda version: int(version.name))
    learned = read_split(data / "train", CLASSES)
    model, record = train(learned, CLASSES, minutes, output / f"{NAME}.pt")
    held_out = _evaluation(data)
    evaluation = split_images(held_out, SERVED, EVALUATION_IMAGES)
    exported = export_package(
        model,
        repository=repository,
        name=NAME,
        labels=record.classes,
        architecture="resnet50",
        preprocessing=SERVED,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        images=evaluation[:: len(evaluation) // _PARITY_IMAGES],
        precisions=PRECISIONS,
        calibration_images=split_images(learned, SERVED, MAX_CALIBRATION_IMAGES),
        evaluation_images=evaluation,
        evaluation_labels=held_out.labels.astype(np.int64),
        provenance=Provenance(
            training_data=f"CIFAR-10 as JPEG, {len(learned):,} pictures of {len(record.classes)} classes",
            recipe=(
                f"benchmarks.trained_resnet50: {record.pictures:,} pictures at 64, 128 and 224 pixels in "
                f"{record.seconds / 60:.0f} min of one core"
            ),
            metrics={"test_accuracy": score(model, held_out).accuracy()},
        ),
    )
    for variant in exported.variants:
        print(variant)
    return exported.folder


def _evaluation(data: Path) -> Split:
    """Test pictures, as many of each class."""
    split = read_split(data / "test", CLASSES)
    chosen = spread(len(split), EVALUATION_IMAGES)
    return Split([split.sources[index] for index in chosen], split.labels[chosen])


def _int8_on_openvino(folder: Path, split: Split) -> Agreement:
    """The manifest has ONNX Runtime's own int8; another engine rounds in other places."""
    images = split_images(split, SERVED, EVALUATION_IMAGES)
    return agreement(
        cpu_outputs(folder / "model.onnx", images, _BATCH_SIZE),
        openvino_outputs(folder / "model.int8.onnx", images, _BATCH_SIZE, "bf16"),
        split.labels.astype(np.int64),
    )


def _figures(measured: dict[str, Agreement], metrics: dict[str, Any]) -> list[Figure]:
    figures = [Figure("resnet50_fp32_accuracy", metrics["test_accuracy"], _MIN_ACCURACY)]
    for name in ("bf16", "int8", "int8_openvino"):
        gate, numbers = GATES[name.partition("_")[0]], measured.get(name)
        if numbers is None:  # it failed its gate, and isn't in the package
            figures.append(Figure(f"resnet50_{name}_published", 0, 1))
            continue
        lost = (numbers.reference_top1_accuracy or 0) - (numbers.top1_accuracy or 0)
        figures += [
            Figure(f"resnet50_{name}_top1_agreement", numbers.top1_agreement or 0, gate.top1_agreement),
            Figure(f"resnet50_{name}_embedding_cosine", numbers.embedding_cosine, gate.embedding_cosine),
            Figure(f"resnet50_{name}_accuracy_lost", lost, MAX_ACCURACY_LOSS, at_most=True),
        ]
    return figures


if __name__ == "__main__":
    main()
