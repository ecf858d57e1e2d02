"""The loader alone: encoded files → batches of training's views, against Pillow's bare decoding.

    python -m benchmarks.loader

For a folder, a CSV table and WebDataset shards of the same photographs, and 0, 1, 2 … workers up to the
cores: images/s of whole epochs of random resized crops (224 × 224) in batches of 64, in the steady state
(workers started, first batches passed over). The floor is what any loader must do: as many processes as
workers, each of which reads the files, decodes them with Pillow and resizes a random part, and gives nothing
to anybody. Rounds take floor and loader in turn. The figure is the least ratio of the kinds, with a worker a
core.

With --megapixels the photographs are enlarged first (as benchmarks/decode.py does); the last rows then show
what scaled decoding gains.
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

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, conclude
from benchmarks.large_photos import enlarged, photo_files
from benchmarks.machine import describe
from service.preprocess import Preprocessing
from training.data import Batches
from training.sources import find_pictures
from training.splits import Split
from training.transforms import TrainTransform

BATCH_SIZE = 64
SIDE = 224
BAR = 0.85
_EPOCH_IMAGES = 4096


def loader_rate(batches: Batches, seconds: float) -> float:
    """Images/s that a loader alone gives, from its second batch on.

    Args:
        batches: what training would iterate; its workers are started, and its epoch moves on.
        seconds: how long to go on at least.
    """
    source = _endless(batches)
    for _ in range(1 + batches.workers):
        next(source)
    images, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        images += len(next(source)[0])
    source.close()
    return images / passed if images else 0.0


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
    parser.add_argument(
        "--photos", type=Path, default=default, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=float, help="enlarge the photographs to this")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds, without figures")
    options = parser.parse_args()
    seconds, rounds = (0.3, 1) if options.quick else (options.seconds, options.rounds)
    cores = len(os.sched_getaffinity(0))
    # Each process has a core; threads inside of one would take its neighbour's.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        kinds = _kinds(Path(work), photo_files(options.photos), options.megapixels)
        folder = kinds["folder"].sources
        paths = [source for source in folder if isinstance(source, Path)]
        ratios = {}
        print(f"{'workers':>7} {'images/s':>9} {'floor':>7} {'ratio':>6}  source")
        for workers in sorted({0, *(2**power for power in range(5) if 2**power < cores), cores}):
            for kind, split in kinds.items():
                batches = _batches(split, workers)
                loaded, floor = _in_turns(batches, paths, seconds, rounds)
                ratios[kind, workers] = statistics.median(
                    own / other for own, other in zip(loaded, floor, strict=True)
                )
                print(
                    f"{workers:>7} {statistics.median(loaded):9.0f} {statistics.median(floor):7.0f} "
                    f"{ratios[kind, workers]:6.3f}  {kind}"
                )
        if options.megapixels:
            for scaled in (False, True):
                rate = loader_rate(_batches(kinds["folder"], cores, scaled), seconds)
                print(f"{cores:>7} {rate:9.0f} {'':>14}  folder, {'scaled' if scaled else 'whole'} decode")
    print(f"{cores} cores; {describe()}")
    least = min(ratio for (_, workers), ratio in ratios.items() if workers == cores)
    conclude(Figure("loader_ratio", least, BAR), quick=options.quick)


def _kinds(work: Path, photos: list[Path], megapixels: float | None) -> dict[str, Split]:
    """The same pictures as each kind of source."""
    names = [f"{index:03}.jpg" for index in range(len(photos))]
    contents = [enlarged(photo, megapixels) if megapixels else photo.read_bytes() for photo in photos]
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


def _batches(split: Split, workers: int, scaled: bool = False) -> Batches:
    spec = Preprocessing(256, SIDE, SIDE, jpeg_scaled_decode=scaled)
    transform = TrainTransform(spec, "resized", mirror=True)
    return Batches(split, transform, BATCH_SIZE, shuffle=True, workers=workers)


def _in_turns(
    batches: Batches, paths: list[Path], seconds: float, rounds: int
) -> tuple[list[float], list[float]]:
    loaded, floor = [], []
    for _ in range(rounds):
        floor.append(_floor(paths, max(batches.workers, 1), seconds))
        loaded.append(loader_rate(batches, seconds))
        # Workers that wait would still hold what they loaded ahead, and load more while the floor runs.
        batches.close()
    return loaded, floor


def _endless(batches: Batches) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    while True:
        batches.epoch += 1
        yield from batches


def _floor(paths: list[Path], processes: int, seconds: float) -> float:
    context = multiprocessing.get_context("fork")
    counts: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    go, stop = context.Event(), context.Event()
    workers = [
        context.Process(target=_bare, args=(paths, seed, go, stop, counts)) for seed in range(processes)
    ]
    for worker in workers:
        worker.start()
    go.set()
    started = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    total = sum(counts.get() for _ in workers)
    passed = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return total / passed


def _bare(
    paths: list[Path], seed: int, go: Event, stop: Event, counts: "multiprocessing.SimpleQueue[int]"
) -> None:
    draw = random.Random(seed)  # noqa: S311 - which parts, not secrets
    go.wait()
    count = 0
    while not stop.is_set():
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
    counts.put(count)


if __name__ == "__main__":
    main()
