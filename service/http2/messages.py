"""gRPC's messages in a stream of DATA: a flag, a length and so many bytes each, anyhow cut into frames."""

import struct
import zlib
from collections import deque

_PREFIX = struct.Struct(">BI")
_PIECE_BYTES = 4096
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class MessageFault(Exception):
    """The call ends: its messages can't be read."""


class TooLarge(MessageFault):
    """A message is larger than may be."""


class Unsupported(MessageFault):
    """A message is compressed in a way that isn't known here."""


def prefixed(message: bytes) -> bytes:
    """A message as it goes into DATA."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Puts one stream's messages together again.

    Attributes:
        held_bytes: that came and weren't taken yet.
        missing_bytes: that the message that is coming still lacks; of its prefix, while that isn't whole.
    """

    __slots__ = ("_compressed", "_encoding", "_largest_bytes", "_messages", "_parts", "_prefix", "held_bytes",
                 "missing_bytes")  # fmt: skip

    def __init__(self, largest_bytes: int, encoding: str) -> None:
        """Begin.

        Args:
            largest_bytes: of one message, before and after it is decompressed.
            encoding: of messages that say they are compressed.
        """
        self._largest_bytes, self._encoding = largest_bytes, encoding
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._prefix = b""
        self._parts: list[bytearray | memoryview] = []
        self._compressed = False
        self.held_bytes, self.missing_bytes = 0, _PREFIX.size

    def feed(self, data: memoryview) -> None:
        """Take what came.

        Raises:
            TooLarge: a message is announced that is.
            MessageFault: this isn't gRPC's framing.
        """
        self.held_bytes += len(data)
        while data:
            if len(self._prefix) < _PREFIX.size:
                self._prefix += data[: self.missing_bytes]
                data = data[self.missing_bytes :]
                self.missing_bytes = _PREFIX.size - len(self._prefix)
                if self.missing_bytes:
                    return
                self._begin()
            part = data[: self.missing_bytes]
            if part:
                # What is most of a read is better held than copied; pieces would hold more than they are.
                if len(part) >= _PIECE_BYTES and 2 * len(part) > len(part.obj):  # type: ignore[arg-type] # bytes
                    self._parts.append(part)
                elif self._parts and isinstance(last := self._parts[-1], bytearray):
                    last += part
                else:
                    self._parts.append(bytearray(part))
                self.missing_bytes -= len(part)
                data = data[len(part) :]
            if not self.missing_bytes:
                self._messages.append((b"".join(self._parts), self._compressed))
                self._parts.clear()
                self._prefix, self.missing_bytes = b"", _PREFIX.size

    def _begin(self) -> None:
        flag, length = _PREFIX.unpack(self._prefix)
        if flag > 1:
            raise MessageFault(f"a message begins with {flag}; expected 0, or 1 for a compressed one")
        if length > self._largest_bytes:
            raise TooLarge(f"Received message larger than max ({length} vs. {self._largest_bytes})")
        self._compressed, self.missing_bytes = bool(flag), length

    @property
    def within(self) -> bool:
        """Whether a message has begun and isn't whole."""
        return len(self._prefix) > 0

    def __bool__(self) -> bool:
        """Whether a whole message is there."""
        return bool(self._messages)

    def take(self) -> bytes:
        """The oldest whole message.

        Raises:
            MessageFault: it can't be decompressed.
        """
        message, compressed = self._messages.popleft()
        self.held_bytes -= _PREFIX.size + len(message)
        return self._decompressed(message) if compressed else message

    def _decompressed(self, message: bytes) -> bytes:
        if self._encoding in ("", "identity"):
            raise MessageFault("a message says it is compressed; grpc-encoding doesn't say how")
        if self._encoding not in _WINDOW_BITS:
            raise Unsupported(f"grpc-encoding is {self._encoding!r}; expected identity, deflate or gzip")
        decompressor = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        try:
            content = decompressor.decompress(message, self._largest_bytes + 1)
        except zlib.error as error:
            raise MessageFault(f"a message isn't {self._encoding}: {error}") from None
        if len(content) > self._largest_bytes:
            raise TooLarge(
                f"Received message larger than max ({len(content)} or more vs. {self._largest_bytes})"
            )
        if not decompressor.eof:
            raise MessageFault(f"a message of {self._encoding} is cut short")
        return content
