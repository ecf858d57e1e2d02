"""ResNet-50 behind gRPC against the same decoding and session without a server, on one core.

    python -m benchmarks.serve_resnet50

Server (or floor) on one core, client on another; 16 callers in a closed loop, one JPEG a call, batches of 8
for both; interleaved rounds, so that a noisy neighbour hits both sides.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fovea

from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe

BATCH_SIZE = 8
CALLERS = 16
BAR = 0.90


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
    parser.add_argument(
        "--photos", type=Path, default=default, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--round-s", type=float, default=10.0)
    options = parser.parse_args()
    photos = sorted(file for file in options.photos.glob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not photos:
        raise SystemExit(f"no JPEG files in {options.photos}; name a folder with --photos")
    server_core, client_core = cores()

    with tempfile.TemporaryDirectory() as folder:
        package = _export(Path(folder) / "models")
        with (
            _pinned_floor(package, photos, server_core) as floor,
            _pinned_server(Path(folder), server_core) as address,
        ):
            os.sched_setaffinity(0, {client_core})
            files = [photo.read_bytes() for photo in photos]
            pairs = asyncio.run(_rounds(address, files, floor, options.rounds, options.round_s))

    served, without = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    print(f"ratio {ratio:.3f}: {served:.1f} images/s served, {without:.1f} without a server (medians)")
    print(f"ResNet-50 fp32, batches of {BATCH_SIZE}, {CALLERS} callers, one core; {describe()}")
    conclude(Figure("serve_resnet50_ratio", ratio, BAR))


def _export(repository: Path) -> Path:
    """A randomly initialised ResNet-50: as fast as a trained one."""
    command = [
        sys.executable, "-c",
        "import sys, torch; from pathlib import Path; from service.preprocess import Preprocessing;"
        "from training.export import export_package; from training.models import architecture;"
        "torch.manual_seed(0);"
        "export_package(architecture('resnet50').build(1000), repository=Path(sys.argv[1]), name='resnet50',"
        "labels=[str(i) for i in range(1000)], architecture='resnet50',"
        "preprocessing=Preprocessing(256, 224, 224, 'bilinear'),"
        "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))",
        str(repository),
    ]  # fmt: skip
    # In a process of its own, so that torch's threads and memory are gone when the clock runs.
    subprocess.run(command, check=True)
    return repository / "resnet50" / "1"


@contextlib.contextmanager
def _pinned_floor(package: Path, photos: list[Path], core: int) -> Iterator["_Floor"]:
    command = [
        "taskset", "--cpu-list", str(core),
        sys.executable, "-m", "benchmarks.floor", str(package), str(BATCH_SIZE), *map(str, photos),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield _Floor(process)
    finally:
        process.terminate()
        process.wait()


class _Floor:
    """The floor's process; call it with seconds to get images per second."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._answers = process.stdin, process.stdout
        assert self._answers.readline() == "ready\n"

    def __call__(self, seconds: float) -> float:
        self._orders.write(f"{seconds}\n")
        self._orders.flush()
        return float(self._answers.readline())


@contextlib.contextmanager
def _pinned_server(folder: Path, core: int) -> Iterator[str]:
    command = [
        "taskset", "--cpu-list", str(core),
        sys.executable, "-m", "service", "serve", "--model-repository", str(folder / "models"),
        "--index-path", str(folder / "index"), "--port", "50961", "--metrics-port", "0",
        "--max-batch-size", str(BATCH_SIZE), "--execution-provider", "cpu", "--lame-duck-s", "0",
    ]  # fmt: skip
    address = "127.0.0.1:50961"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        with fovea.Client(address) as client:
            client.wait_until_ready(timeout=120)
        yield address
    finally:
        process.terminate()
        process.wait()


async def _rounds(
    address: str, files: list[bytes], floor: "_Floor", rounds: int, seconds: float
) -> list[tuple[float, float]]:
    """Images per second, served and without a server, of each round."""
    pairs = []
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(fovea.AsyncClient(address)) for _ in range(CALLERS)]
        await _load(clients, files, 2.0)
        for number in range(rounds):
            without = await asyncio.to_thread(floor, seconds)
            served = await _load(clients, files, seconds)
            pairs.append((served, without))
            ratio = served / without
            print(
                f"round {number + 1}: served {served:.2f}/s, floor {without:.2f}/s, {ratio:.3f}", flush=True
            )
    return pairs


async def _load(clients: list[fovea.AsyncClient], files: list[bytes], seconds: float) -> float:
    """Closed loop: images per second, from the first call to the last answer, as the floor counts."""
    started = time.perf_counter()
    answered = 0

    async def caller(number: int, client: fovea.AsyncClient) -> None:
        nonlocal answered
        position = number * len(files) // CALLERS
        while time.perf_counter() - started < seconds:
            await client.classify(files[position % len(files)])
            position += 1
            answered += 1

    await asyncio.gather(*(caller(number, client) for number, client in enumerate(clients)))
    return answered / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
