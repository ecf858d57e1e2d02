"""The loader alone: encoded files → batches of training's views, against Pillow's bare decoding.

    python -m benchmarks.loader

For a folder, a CSV table and WebDataset shards of the same photographs, and 0, 1, 2 … workers up to the
cores: images/s of whole epochs of random resized crops (224 × 224) in batches of 64, in the steady state
(workers started, first batches passed over). The floor is what any loader must do: as many processes as
workers, each of which reads the files, decodes them with Pillow and resizes a random part, and gives nothing
to anybody. Rounds take floor and loader in turn. The ratio is that of processor time an image, of all
processes: on a core of their own that is the time on the clock, and where others use the cores too it still
is the loader's own. The figure is the least ratio of the kinds, with a worker a core.
"""

import argparse
import io
import itertools
import multiprocessing
import os
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Generator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, conclude
from benchmarks.large_photos import photo_files
from benchmarks.machine import describe
from service.preprocess import Preprocessing
from training.data import Batches
from training.sources import find_pictures
from training.splits import Split
from training.transforms import TrainTransform

BATCH_SIZE = 64
SIDE = 224
BAR = 0.9
_EPOCH_IMAGES = 4096


class Measured(NamedTuple):
    """Of some seconds of work.

    Attributes:
        rate: images/s on the clock.
        processor_ms: processor time an image, of all processes.
    """

    rate: float
    processor_ms: float


def loader_rate(batches: Batches, seconds: float) -> float:
    """Images/s that a loader alone gives, in the steady state; its epoch moves on."""
    return measure_loader(batches, seconds).rate


def measure_loader(batches: Batches, seconds: float) -> Measured:
    """Iterate what training would iterate, and do nothing with it.

    Args:
        batches: its workers are started, and its epoch moves on.
        seconds: how long to go on at least, after as many batches as are made ahead.
    """
    source = _endless(batches)
    for _ in range(1 + 4 * batches.workers):
        next(source)
    images, started, used = 0, time.perf_counter(), _processor_seconds()
    while (passed := time.perf_counter() - started) < seconds or not images:
        images += len(next(source)[0])
    used = _processor_seconds() - used
    source.close()
    return Measured(images / passed, 1000 * used / images)


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
    parser.add_argument(
        "--photos", type=Path, default=default, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds, without figures")
    options = parser.parse_args()
    seconds, rounds = (0.3, 1) if options.quick else (options.seconds, options.rounds)
    cores = len(os.sched_getaffinity(0))
    # Each process has a core; threads inside of one would take its neighbour's.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        kinds = _kinds(Path(work), photo_files(options.photos))
        folder = kinds["folder"].sources
        paths = [source for source in folder if isinstance(source, Path)]
        ratios = {}
        print(f"{'':>7} {'images/s':>14} {'processor ms an image':>21}")
        print(f"{'workers':>7} {'loader':>7} {'floor':>6} {'loader':>10} {'floor':>7} {'ratio':>6}  source")
        for workers in sorted({0, *(2**power for power in range(5) if 2**power < cores), cores}):
            for kind, split in kinds.items():
                loaded, floor = _in_turns(_batches(split, workers), paths, seconds, rounds)
                ratios[kind, workers] = statistics.median(
                    other.processor_ms / own.processor_ms for own, other in zip(loaded, floor, strict=True)
                )
                own, other = _median(loaded), _median(floor)
                print(
                    f"{workers:>7} {own.rate:7.0f} {other.rate:6.0f} {own.processor_ms:10.2f} "
                    f"{other.processor_ms:7.2f} {ratios[kind, workers]:6.3f}  {kind}"
                )
    print(f"{cores} cores; {describe()}")
    least = min(ratio for (_, workers), ratio in ratios.items() if workers == cores)
    conclude(Figure("loader_ratio", least, BAR), quick=options.quick)


def _kinds(work: Path, photos: list[Path]) -> dict[str, Split]:
    """The same pictures as each kind of source."""
    names = [f"{index:03}.jpg" for index in range(len(photos))]
    contents = [photo.read_bytes() for photo in photos]
    (work / "folder").mkdir()
    (work / "shards").mkdir()
    for name, content in zip(names, contents, strict=True):
        (work / "folder" / name).write_bytes(content)
    (work / "table.csv").write_text("path\n" + "".join(f"folder/{name}\n" for name in names))
    with tarfile.open(work / "shards" / "0.tar", "w") as archive:
        for name, content in zip(names, contents, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    kinds = {}
    for kind, data in (("folder", "folder"), ("table", "table.csv"), ("shards", "shards")):
        sources = find_pictures(work / data).sources
        # Again and again, so that an epoch is long.
        many = list(itertools.islice(itertools.cycle(sources), _EPOCH_IMAGES))
        kinds[kind] = Split(many, np.zeros(len(many), np.int64))
    return kinds


def _batches(split: Split, workers: int) -> Batches:
    # As `fit` has it, which mirrors whole batches on the device.
    transform = TrainTransform(Preprocessing(256, SIDE, SIDE), "resized", mirror=False)
    return Batches(split, transform, BATCH_SIZE, shuffle=True, workers=workers)


def _in_turns(
    batches: Batches, paths: list[Path], seconds: float, rounds: int
) -> tuple[list[Measured], list[Measured]]:
    loaded, floor = [], []
    for _ in range(rounds):
        floor.append(_floor(paths, max(batches.workers, 1), seconds))
        loaded.append(measure_loader(batches, seconds))
        # Workers that wait would still load ahead while the floor runs.
        batches.close()
    return loaded, floor


def _median(several: list[Measured]) -> Measured:
    return Measured(*(statistics.median(values) for values in zip(*several, strict=True)))


def _processor_seconds() -> float:
    """Of this process and its children, so far."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        # Behind the name in brackets: user and system time are the 14th and 15th field.
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _endless(batches: Batches) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    while True:
        batches.epoch += 1
        yield from batches


def _floor(paths: list[Path], processes: int, seconds: float) -> Measured:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[tuple[int, float]] = context.SimpleQueue()
    go, stop = context.Event(), context.Event()
    workers = [
        context.Process(target=_bare, args=(paths, seed, go, stop, results)) for seed in range(processes)
    ]
    for worker in workers:
        worker.start()
    go.set()
    started = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    counts, used = zip(*(results.get() for _ in workers), strict=True)
    passed = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return Measured(sum(counts) / passed, 1000 * sum(used) / sum(counts))


def _bare(
    paths: list[Path],
    seed: int,
    go: Event,
    stop: Event,
    results: "multiprocessing.SimpleQueue[tuple[int, float]]",
) -> None:
    draw = random.Random(seed)  # noqa: S311 - which parts, not secrets
    go.wait()
    count, started = 0, time.process_time()
    while not stop.is_set() or not count:
        with Image.open(io.BytesIO(paths[draw.randrange(len(paths))].read_bytes())) as picture:
            whole = picture.convert("RGB")
        width, height = whole.size
        ratio = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        area = draw.uniform(0.08, 1) * width * height
        across, down = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = draw.uniform(0, width - across), draw.uniform(0, height - down)
        box = (left, top, left + across, top + down)
        np.array(whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
        count += 1
    results.put((count, time.process_time() - started))


if __name__ == "__main__":
    main()
