"""HTTP/2's frames (RFC 9113, sections 4 to 7)."""

import enum
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
# Before the peer's SETTINGS say something else.
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
LARGEST_FRAME_BYTES = 2**24 - 1
LARGEST_WINDOW_BYTES = 2**31 - 1
LARGEST_STREAM_ID = 2**31 - 1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20


class Kind(enum.IntEnum):
    """A frame's type."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(enum.IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(enum.IntEnum):
    """What SETTINGS may say (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The peer breaks the protocol: the connection ends, with this code."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# Length (24 bits, as 8 and 16), type, flags, stream.
_HEADER = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
unpack_header = _HEADER.unpack_from
pack_number = struct.Struct(">I").pack
unpack_number = struct.Struct(">I").unpack_from


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes before a frame's payload."""
    return _HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return header(kind, flags, stream_id, len(payload)) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame's payload, in order; unknown ones too.

    Raises:
        ConnectionFault: it isn't a list of settings, or a value is out of its range.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    values = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        if name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW_BYTES:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
        if name == Setting.MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    return values


def window_update(stream_id: int, more_bytes: int) -> bytes:
    """Allow so many more bytes on a stream, or on the connection (0)."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, pack_number(more_bytes))


def reset(stream_id: int, code: Code) -> bytes:
    """End a stream at once."""
    return frame(Kind.RST_STREAM, 0, stream_id, pack_number(code))


def go_away(last_stream_id: int, code: Code, reason: str = "") -> bytes:
    """Take no streams above that one any more."""
    return frame(Kind.GOAWAY, 0, 0, pack_number(last_stream_id) + pack_number(code) + reason.encode())


def unpadded(payload: bytes, flags: int) -> bytes:
    """A HEADERS frame's payload without its padding.

    Raises:
        ConnectionFault: there is more padding than payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
