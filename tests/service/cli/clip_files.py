"""Film clips made by PyAV, and what a plain decoding of all of one gives."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av", reason="PyAV isn't installed; the extra `video` brings it")

WIDTH, HEIGHT = 64, 48
RATE = 10
_TICKS = Fraction(1, 1000)
Pixels = NDArray[np.uint8]


def shades(count: int) -> list[Pixels]:
    """Pictures from blue to red, every one a little redder."""
    return [plain((40 + 160 * step // count, 100, 200 - 160 * step // count)) for step in range(count)]


def plain(color: tuple[int, int, int]) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), color, np.uint8)


def write_clip(
    path: Path,
    pictures: Sequence[Pixels],
    *,
    times_ms: Sequence[int] | None = None,
    b_frames: int = 0,
    gop: int = 12,
    options: Mapping[str, str] | None = None,
) -> Path:
    """MPEG-4 in the container that the suffix says, 10 frames a second unless `times_ms` says otherwise."""
    with av.open(str(path), "w", options=dict(options or {})) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        stream.bit_rate = 2_000_000
        context = stream.codec_context
        context.gop_size, context.max_b_frames = gop, b_frames
        if times_ms is not None:
            context.time_base = _TICKS
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = _TICKS if times_ms is not None else Fraction(1, RATE)
            frame.pts = number if times_ms is None else times_ms[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A tenth of a second of silence, and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_clockwise(path: Path) -> None:
    """Have an MP4 say that it is to be shown turned by a quarter, as of a phone held upright.

    The track header's matrix (ISO 14496-12, 8.3.2), which moves x down and y to the left.
    """
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    numbers = (0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    content[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    path.write_bytes(content)


def every_frame(path: Path) -> list[Pixels]:
    """All of a clip's frames in order, decoded plainly."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
