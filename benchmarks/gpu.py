"""ResNet-50 on a GPU, by CUDA and by TensorRT, JPEG in and tensor in, against the floor in one process.

    python -m benchmarks.gpu

For each engine one server and one floor (the same decoding and the same session, without a server), in turns,
each with all cores. The floor runs batches of 1 to 256, decoding one while another runs; for each the server
gets messages of as many images from callers in a closed loop. The bar is on the best rates. Without a GPU
nothing is measured: no figure is printed, and the exit status is 2. The package needs fp16:

    fovea-train export --precision fp16
"""

import argparse
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import loads, resnet50
from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from benchmarks.pinned import PinnedProcess
from service.cli.bench.floor_process import FloorProcess, FloorRound, running_floor
from service.cli.bench.payload import Size
from service.cli.bench.recorder import Recording

BAR = 0.90
BATCH_SIZES = (1, 4, 16, 64, 256)
NOTHING_MEASURED = 2
_ENGINES = ("cuda", "tensorrt")
# Enough that a batch is ready when another ends, also where each caller sends single images.
_IMAGES_IN_FLIGHT, _LEAST_CALLERS = 64, 4
_START_TIMEOUT_S = 900.0
_MIB = 1024 * 1024
_SERVER_LIMITS = (
    "--max-message-bytes", str(64 * _MIB), "--max-queued-bytes", str(2048 * _MIB),
    "--queue-capacity", "4096",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One batch size.

    Attributes:
        served, without: images per second, behind gRPC and in the floor.
        served_p99_ms: of a message.
        without_p99_ms: of a batch.
    """

    images: int
    served: float
    without: float
    served_p99_ms: float
    without_p99_ms: float


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = resnet50.options(__doc__)
    parser.add_argument("--round-s", type=float, default=4.0)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=_ENGINES)
    parser.add_argument("--input-size", type=int, default=224, help="of raw tensors (default: %(default)s)")
    options = parser.parse_args()
    missing = _missing_gpu()
    if missing:
        print(f"no GPU here, nothing was measured: {missing}", file=sys.stderr)
        sys.exit(NOTHING_MEASURED)
    package, photos = resnet50.find(options)
    figures = []
    for engine in options.engines:
        for name, raw in (("jpeg", None), ("tensor", Size(options.input_size, options.input_size))):
            points = _measure(engine, package, photos, raw, options)
            served = max(point.served for point in points)
            without = max(point.without for point in points)
            print(
                f"ratio {served / without:.3f} by {engine}, {name} in: {served:.0f} images/s served, "
                f"{without:.0f} without a server"
            )
            figures.append(Figure(f"gpu_{engine}_{options.precision}_{name}_ratio", served / without, BAR))
    print(f"{package.describe()}\n{options.precision}; {describe()}")
    conclude(*figures, quick=options.quick)


def _missing_gpu() -> str:
    """Why nothing can run on a GPU; empty if it can."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime {onnxruntime.__version__} has no CUDA"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver reports error {status}"
    return "" if count.value else "the NVIDIA driver sees no GPU"


def _measure(
    engine: str, package: resnet50.Package, photos: list[Path], raw: Size | None, options: argparse.Namespace
) -> list[Point]:
    cores = sorted(os.sched_getaffinity(0))
    seconds = 1.0 if options.quick else options.round_s
    setup = loads.floor_of(
        package, photos, provider=engine, precision=options.precision, batch_size=max(BATCH_SIZES),
        cores=cores, raw=raw,
    )  # fmt: skip

    async def rounds(server: PinnedProcess) -> list[Point]:
        async with running_floor(setup) as floor:
            return [await _point(server, floor, photos, raw, images, seconds) for images in BATCH_SIZES]

    with resnet50.served(
        package, engine, options.precision, "--max-batch-size", str(max(BATCH_SIZES)), *_SERVER_LIMITS,
        core=",".join(map(str, cores)), start_timeout_s=_START_TIMEOUT_S,
    ) as server:  # fmt: skip
        return loads.run(rounds(server))


async def _point(
    server: PinnedProcess,
    floor: FloorProcess,
    photos: list[Path],
    raw: Size | None,
    images: int,
    seconds: float,
) -> Point:
    workload = loads.photo_messages(photos, per_message=images, raw=raw)
    callers = max(_LEAST_CALLERS, _IMAGES_IN_FLIGHT // images)
    without: FloorRound = await floor.measure(seconds, images, overlap=True)
    served: Recording = await loads.closed(server, workload, callers, seconds)
    point = Point(
        images,
        loads.rate(served, images),
        without.images_per_s,
        loads.p_ms(served, 99.0),
        without.batches.percentiles_ms(99.0)[0] or 0.0,
    )
    print(
        f"{'tensor' if raw else 'JPEG'} in, {images} images: served {point.served:.0f}/s (p99 "
        f"{point.served_p99_ms:.1f} ms, {callers} callers), floor {point.without:.0f}/s (p99 "
        f"{point.without_p99_ms:.1f} ms)",
        flush=True,
    )
    return point


if __name__ == "__main__":
    main()
