"""int8 on ONNX Runtime's CPU: how much faster than fp32, and what it costs in accuracy.

    python -m benchmarks.int8 --cifar-package models/cifar10-resnet20-cifar/1

Speed: ResNet-50 at 224 × 224, batches of 8, one thread on one core, the service's own sessions of both
precisions in turns, so that a noisy neighbour hits both; the median of the rounds' ratios of processor time,
which doesn't count while others have the core. Weights don't change it: where no ResNet-50 is trained, random
ones do, calibrated on the photographs.

Accuracy: a ResNet-20 trained on CIFAR-10 (recompressed as JPEG), both precisions of its package on all 10,000
test images, prepared as the service prepares them. Train and export it with

    fovea-train fit --recipe cifar-resnet20 --data <cifar10>
    fovea-train export --precision int8
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import cifar10, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from service.errors import ManifestError
from service.image import decode_picture
from service.manifest import Manifest, read_manifest
from service.model_settings import ModelSettings
from service.preprocess import Preprocessing, preprocess
from service.session import ModelSession, open_sessions

PRECISIONS = ("fp32", "int8")
BATCH_SIZE = 8
SPEED_BAR, LOST_POINTS_BAR = 2.5, 0.5
TEST_IMAGES = 10_000
_SCORING_BATCH = 64


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = resnet50.options(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=4, help="of 8 images, each side's in one round")
    parser.add_argument(
        "--cifar-package",
        type=Path,
        help="<repository>/<model>/<version> of a trained CIFAR ResNet with fp32 and int8; without it no "
        "accuracy is measured, and the benchmark fails",
    )
    parser.add_argument(
        "--cifar",
        type=Path,
        default=cifar10.ARCHIVE,
        help="archive of test/<class>/*.jpg, or a folder with that in it (default: %(default)s)",
    )
    options = parser.parse_args()
    trained = _trained(options.cifar_package)
    # Before anything is loaded, so that its threads run there too.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = [_speed(options)]
    if trained is None:
        print(
            "accuracy not measured: name the package of a ResNet-20 trained on CIFAR-10 with "
            "--cifar-package; python -m benchmarks.int8 --help says how to make one"
        )
    else:
        figures.append(_accuracy(options, trained))
    print(f"one core, one thread; {describe()}")
    if trained is None and not options.quick:
        figures.append(Figure("int8_lost_points", float("nan"), LOST_POINTS_BAR, at_most=True))
    conclude(*figures, quick=options.quick)


def _speed(options: argparse.Namespace) -> Figure:
    package, photos = resnet50.find(options)
    manifest = read_manifest(package.folder)
    spec = Preprocessing.of(manifest)
    batch = np.stack([_pixels(path, spec) for path in photos[:BATCH_SIZE]])
    sessions = {precision: _session(manifest, precision, BATCH_SIZE) for precision in PRECISIONS}
    for session in sessions.values():
        session.run(batch)
    rounds, batches = (2, 1) if options.quick else (options.rounds, options.batches)
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for number in range(rounds):
        # Who goes first takes turns.
        for precision in PRECISIONS if number % 2 else PRECISIONS[::-1]:
            started = time.process_time()
            for _ in range(batches):
                sessions[precision].run(batch)
            seconds[precision].append(time.process_time() - started)
    ratios = [slow / fast for slow, fast in zip(seconds["fp32"], seconds["int8"], strict=True)]
    for precision, taken in seconds.items():
        rate = batches * len(batch) / statistics.median(taken)
        print(f"{precision}: {rate:.1f} images a second of processor time (median)")
    quartiles = np.percentile(ratios, [0, 25, 50, 75, 100])
    print(f"int8 over fp32, {rounds} rounds: {', '.join(f'{value:.2f}' for value in quartiles)} (quartiles)")
    print(package.describe())
    return Figure("int8_over_fp32", statistics.median(ratios), SPEED_BAR)


def _trained(folder: Path | None) -> Manifest | None:
    """The package of the trained CIFAR ResNet.

    Raises:
        SystemExit: it isn't there, or has no int8.
    """
    if folder is None:
        return None
    try:
        manifest = read_manifest(folder.resolve())
        manifest.variant("int8")
    except ManifestError as error:
        raise SystemExit(f"not measured: {error}") from error
    return manifest


def _accuracy(options: argparse.Namespace, manifest: Manifest) -> Figure:
    folder = cifar10.pictures(options.cifar, resnet50.WORK)
    paths, labels = _test_images(folder, manifest)
    if options.quick:
        paths, labels = paths[::100], labels[::100]
    spec = Preprocessing.of(manifest)
    pixels = np.stack([_pixels(path, spec) for path in paths])
    right: dict[str, NDArray[np.bool_]] = {}
    for precision in PRECISIONS:
        session = _session(manifest, precision, _SCORING_BATCH)
        chosen = [
            session.run(pixels[start : start + _SCORING_BATCH]).logits.argmax(axis=1)
            for start in range(0, len(pixels), _SCORING_BATCH)
        ]
        right[precision] = np.concatenate(chosen) == labels
        print(
            f"{manifest.name} {precision}: {right[precision].mean():.2%} of {len(pixels)} test images right"
        )
    changed = right["fp32"] != right["int8"]
    print(f"right in one precision only: {int(changed.sum())} images")
    lost = 100 * float(right["fp32"].mean() - right["int8"].mean())
    return Figure("int8_lost_points", lost, LOST_POINTS_BAR, at_most=True)


def _test_images(folder: Path, manifest: Manifest) -> tuple[list[Path], NDArray[np.int64]]:
    places = {label: index for index, label in enumerate(manifest.labels)}
    paths = sorted((folder / "test").glob("*/*.jpg"))
    unknown = sorted({path.parent.name for path in paths} - set(places))
    if unknown or len(paths) != TEST_IMAGES:
        raise SystemExit(
            f"not measured: {folder / 'test'} has {len(paths)} images of {len(places)} classes that "
            f"{manifest.name} knows and of {unknown} that it doesn't; expected {TEST_IMAGES} that it knows"
        )
    return paths, np.array([places[path.parent.name] for path in paths], np.int64)


def _pixels(path: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    return preprocess(decode_picture(path.read_bytes(), least_short_side=spec.least_short_side), spec)


def _session(manifest: Manifest, precision: str, batch_size: int) -> ModelSession:
    settings = ModelSettings(
        execution_provider="cpu",
        precision=precision,
        compile_cache="",
        max_batch_size=batch_size,
        intra_op_threads=1,
    )
    (session,) = open_sessions(manifest, settings)
    return session


if __name__ == "__main__":
    main()
