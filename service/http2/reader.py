"""What is read from a connection, cut into frames (RFC 9113, section 4.1)."""

from typing import Protocol

from service.http2 import frames
from service.http2.frames import Code, ConnectionFault, Kind

# A large frame costs as much as a small one; its content is handed on as it comes.
LARGEST_DATA_BYTES = 1024 * 1024


class Sink(Protocol):
    """What takes the frames."""

    def begin_data(self, stream_id: int, flags: int) -> None:
        """A DATA frame comes."""

    def receive(self, part: memoryview, padding_bytes: int) -> None:
        """A part of its content, or of its padding."""

    def end_data(self) -> None:
        """That was all of it."""

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """A frame of another kind."""


class FrameReader:
    """Cuts the bytes of one connection, however they come, into frames."""

    def __init__(self, sink: Sink, largest_bytes: int) -> None:
        """Expect the preface.

        Args:
            sink: takes the frames.
            largest_bytes: of a frame that isn't DATA.
        """
        self._sink, self._largest_bytes = sink, largest_bytes
        self._introduced = False
        self._left_over = b""
        self._data_left = 0  # of a DATA frame's payload,
        self._padding = 0  # and the last so many of it are padding

    def feed(self, data: bytes) -> None:
        """Take what came, a part of a frame or many.

        Raises:
            ConnectionFault: this isn't HTTP/2, or a frame is too large; and what the sink raises.
        """
        if self._left_over:
            data = self._left_over + data
            self._left_over = b""
        position, end = 0, len(data)
        if not self._introduced:
            if not data.startswith(frames.PREFACE[:end]):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "this isn't HTTP/2")
            if end < len(frames.PREFACE):
                self._left_over = data
                return
            self._introduced, position = True, len(frames.PREFACE)
        view = memoryview(data)
        while True:
            if self._data_left:
                part = view[position : position + self._data_left]
                if not part:
                    return
                position += len(part)
                self._hand_on(part)
                continue
            if end - position < frames.HEADER_BYTES:
                break
            high, low, kind, flags, stream_id = frames.unpack_header(data, position)
            length, stream_id = high << 16 | low, stream_id & frames.LARGEST_STREAM_ID
            if length > LARGEST_DATA_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            if kind == Kind.DATA:
                padding = 0
                if flags & frames.PADDED:
                    if length and end - position == frames.HEADER_BYTES:
                        break  # how much padding it has isn't there yet
                    padding = 1 + data[position + frames.HEADER_BYTES] if length else 1
                    if padding > length:
                        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
                    position += 1
                position += frames.HEADER_BYTES
                self._begin(stream_id, flags, length, padding)
                continue
            if length > self._largest_bytes:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"a frame of type {kind} has {length} bytes")
            if end - position < frames.HEADER_BYTES + length:
                break
            begin = position + frames.HEADER_BYTES
            position = begin + length
            self._sink.take(kind, flags, stream_id, data[begin:position])
        self._left_over = data[position:]

    def _begin(self, stream_id: int, flags: int, length: int, padding: int) -> None:
        self._sink.begin_data(stream_id, flags)
        self._data_left = length
        if padding:  # its length's own byte was read
            self._padding = padding
            self._hand_on(_NOTHING, 1)
        elif not length:
            self._sink.end_data()

    def _hand_on(self, part: memoryview, padding_bytes: int = 0) -> None:
        size = len(part) + padding_bytes
        if self._padding:
            self._padding -= padding_bytes
            part = part[: max(0, self._data_left - padding_bytes - self._padding)]
        self._data_left -= size
        self._sink.receive(part, size - len(part))
        if not self._data_left:
            self._padding = 0
            self._sink.end_data()


_NOTHING = memoryview(b"")
