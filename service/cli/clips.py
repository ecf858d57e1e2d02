"""A film clip → some of its frames, evenly in time. FFmpeg reads it, by PyAV of the extra `video`."""

from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fovea import InvalidImage
from numpy.typing import NDArray

if TYPE_CHECKING:  # of an extra
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Stands for the time of a packet that has none, or that isn't shown.
_NEVER = -(2**63)
# AVColorSpace and AVColorRange of FFmpeg's pixfmt.h.
_BT709, _FULL_RANGE = 1, 2


@dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        time_s: from the clip's first frame, in seconds.
        moments: at how many of the moments looked at it is shown, at least 1.
        pixels: uint8 [height, width, 3] RGB, upright.
    """

    time_s: float
    moments: int
    pixels: NDArray[np.uint8]


class Clip:
    """A file with moving pictures.

    It is read twice, the second time for its frames. Of a long clip only the stretches that lead to those
    are decoded, and one frame at a time is kept. What the file says of its length isn't relied on.

    Attributes:
        notes: that it is cut short, or that frames can't be decoded. Complete when `frames` has ended.
    """

    def __init__(self, path: Path) -> None:
        """Look through the file, without decoding it.

        Raises:
            InvalidImage: it can't be read, or has no video, or none with times.
        """
        self._path = path
        self.notes: list[str] = []
        # Of each packet in the file's order; in units of the stream's time base.
        self._times = array("q")
        self._keys: list[int] = []  # places of packets that decoding can begin with
        last, last_duration = _NEVER, 0
        with self._opened() as (container, stream):
            for place, packet in enumerate(_packets(container, stream)):
                time = _NEVER if packet.is_discard else _time(packet)
                self._times.append(time)
                if time > last:
                    last, last_duration = time, packet.duration or 0
                if packet.is_keyframe and time != _NEVER:
                    self._keys.append(place)
            self._unit_s, said = float(stream.time_base or 0), stream.frames
        self._shown = sorted({time for time in self._times if time != _NEVER})
        if not self._shown:
            why = "its frames carry no times" if self._times else "it has no frames; it may be cut short"
            raise InvalidImage(f"{path}: not a video that can be used: {why}")
        if len(self._times) < said:
            self.notes.append(f"cut short: {len(self._times):,} of its {said:,} frames are there")
        gaps = len(self._shown) - 1
        self._end = last + (last_duration or ((last - self._shown[0]) // gaps if gaps else 1))

    def frames(self, count: int) -> Iterator[Frame]:
        """At most `count` frames, in order.

        The clip's time is divided into `count` equal parts, and the frame that is shown in the middle of
        each is taken; one that stands longer than a part counts for several. A clip with no more than
        `count` frames gives each of them once. Where one can't be decoded, the others are given.

        Raises:
            InvalidImage: none can be decoded.
        """
        wanted = self._choose(count)
        chosen, given = len(wanted), 0
        for moments, time, frame in self._decoded(wanted):
            given += 1
            time_s = round((time - self._shown[0]) * self._unit_s, 6)
            yield Frame(time_s, moments, _upright(frame))
        if not given:
            raise InvalidImage(f"{self._path}: none of the video's frames can be decoded")
        if given < chosen:
            self.notes.append(f"{given} of the {chosen} frames chosen could be decoded")

    def _choose(self, count: int) -> "deque[tuple[int, int]]":
        """The times of frames to decode, ascending, and how many moments each stands for."""
        shown, first = self._shown, self._shown[0]
        if len(shown) <= count:
            return deque((time, 1) for time in shown)
        moments = (first + (2 * part + 1) * (self._end - first) // (2 * count) for part in range(count))
        chosen = Counter(shown[bisect_right(shown, moment) - 1] for moment in moments)
        return deque(sorted(chosen.items()))

    def _decoded(self, wanted: "deque[tuple[int, int]]") -> "Iterator[tuple[int, int, VideoFrame]]":
        """The frames at those times: moments, time and frame of each; takes from `wanted`."""
        with self._opened() as (container, stream):
            stream.thread_type = "AUTO"
            reading = False
            for place, packet in enumerate(_packets(container, stream)):
                if not wanted:
                    return
                if not reading and place < self._beginning(wanted[0][0]):
                    continue
                reading = True
                for frame in _decode(stream, packet):
                    yield from _take(wanted, frame)
                if wanted and place < self._beginning(wanted[0][0]):
                    # What comes before that needs no decoding; what the decoder still holds neither.
                    stream.codec_context.flush_buffers()
                    reading = False
            if reading:
                for frame in _decode(stream, None):
                    yield from _take(wanted, frame)

    def _beginning(self, time: int) -> int:
        """The place of the packet to begin with: the last one shown by then that needs none before it."""
        nearest = bisect_right(self._keys, time, key=self._times.__getitem__) - 1
        return self._keys[nearest] if nearest >= 0 else 0

    @contextmanager
    def _opened(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        import av
        from av.stream import Disposition

        try:
            # The file alone: a playlist could name addresses in the network.
            container = av.open(
                f"file:{self._path}", metadata_errors="replace", options={"protocol_whitelist": "file"}
            )
        except av.error.FFmpegError as error:
            reason = error.strerror or error
            raise InvalidImage(
                f"{self._path}: not a video that can be read, or cut short at its beginning or end: {reason}"
            ) from error
        with container:
            pictures = [
                stream
                for stream in container.streams.video
                if not stream.disposition & Disposition.attached_pic  # an album's cover
            ]
            if not pictures:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise InvalidImage(f"{self._path}: has no video; it has {kinds}")
            if pictures[0].codec_context is None:
                raise InvalidImage(f"{self._path}: its video is of a codec that PyAV {av.__version__} hasn't")
            yield container, pictures[0]


def _packets(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet[VideoStream]]":
    """The stream's packets, as far as they can be read."""
    import av

    try:
        # The last one, which is empty, would have the decoder give out what it holds.
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError:
        return


def _decode(stream: "VideoStream", packet: "Packet[VideoStream] | None") -> "list[VideoFrame]":
    """What a packet gives, or the end (None); nothing where it is broken."""
    import av

    try:
        return stream.decode(packet)
    except av.error.FFmpegError:
        return []


def _take(wanted: "deque[tuple[int, int]]", frame: "VideoFrame") -> "Iterator[tuple[int, int, VideoFrame]]":
    """The frame, where it is the one that is wanted next; those before it that never came are given up."""
    time, moments = _time(frame), 0
    while wanted and wanted[0][0] <= time:
        moments = wanted.popleft()[1]
    if moments:
        yield moments, time, frame


def _time(timed: "Packet[VideoStream] | VideoFrame") -> int:
    # AVI files have the times of decoding only.
    time = timed.dts if timed.pts is None else timed.pts
    return _NEVER if time is None else time


def _upright(frame: "VideoFrame") -> NDArray[np.uint8]:
    """Uint8 [height, width, 3] RGB."""
    if frame.colorspace == _BT709 or frame.color_range == _FULL_RANGE:
        # Else FFmpeg takes BT.601 in video range, as for frames that say nothing.
        frame = frame.reformat(
            format="rgb24",
            src_colorspace="ITU709" if frame.colorspace == _BT709 else "ITU601",
            dst_colorspace="DEFAULT",
            src_color_range=frame.color_range,
        )
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    # Phones record lying down, and say how far the picture is to be turned, counter-clockwise.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
