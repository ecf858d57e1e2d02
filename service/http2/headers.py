"""Header blocks: what a call asks for, and what an answer begins and ends with.

Reading them needs HPACK (RFC 7541), which `hpack` does. gRPC's clients send the same few blocks again and
again, almost only references into their table, so a block that leaves the table as it is is read once.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

import grpc
from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from service.http2.frames import Code, ConnectionFault

Metadata = Sequence[tuple[str, str | bytes]]
# Of a call's headers, decoded, each with 32 bytes more (RFC 9113, section 6.5.2); as gRPC's hard limit.
LARGEST_LIST_BYTES = 16 * 1024
# A call with more is refused; with even more its connection ends, which proxies share among callers.
LARGEST_DECODED_BYTES = 4 * LARGEST_LIST_BYTES
_MOST_REMEMBERED = 64
_LARGEST_REMEMBERED_BYTES = 1024
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_NAME = re.compile(rb"[0-9a-z_.\-!#$%&'*+^`|~]+")
_SENT_NAME = re.compile(r"[0-9a-z_.\-]+")
_SENT_VALUE = re.compile(r"[\x20-\x7e]*")
# What no value may contain, or requests could be smuggled through a proxy (RFC 9113, section 8.2.1).
_BREAK = re.compile(rb"[\0\r\n]")
_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_OF_CONNECTION = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
_IS_GRPC = re.compile(r"application/grpc([+;].*)?", re.DOTALL)
# What gRPC leaves unencoded in a status message.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class CallHeaders(NamedTuple):
    """What a call's header block says.

    Attributes:
        method: "POST" where it is a call.
        path: /package.service/method.
        content_type: of gRPC's where it is a call.
        encoding: how its compressed messages are compressed.
        timeout_s: from now on; None: the caller sets no deadline.
        metadata: the caller's own, in order; values of names that end in -bin are bytes.
        fault: what the caller is told to be wrong with them.
        malformed: they are no request of HTTP/2's (RFC 9113, section 8.1.1).
    """

    method: str
    path: str
    content_type: str
    encoding: str
    timeout_s: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    fault: tuple[grpc.StatusCode, str] | None
    malformed: bool


class HeaderReader:
    """Reads the header blocks of one connection, in order: they share a table."""

    def __init__(self) -> None:
        """Begin with an empty table."""
        self._decoder = Decoder(max_header_list_size=LARGEST_DECODED_BYTES)
        self._remembered: dict[bytes, CallHeaders] = {}

    def read(self, block: bytes) -> CallHeaders:
        """What a block says.

        Raises:
            ConnectionFault: it can't be decoded, so that no later one can be.
        """
        if found := self._remembered.get(block):
            return found
        table = self._decoder.header_table
        before = list(table.dynamic_entries), table.maxsize
        try:
            pairs = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, f"more than {LARGEST_DECODED_BYTES} bytes of headers"
            ) from None
        except (HPACKError, ValueError, IndexError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"a header block: {error}") from None
        headers = _understood(pairs)
        if (list(table.dynamic_entries), table.maxsize) != before:
            self._remembered.clear()  # references mean something else now
        elif sum(len(name) + len(value) for name, value in pairs) <= _LARGEST_REMEMBERED_BYTES:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[block] = headers
        return headers


def is_grpc(content_type: str) -> bool:
    """Whether a request of this type is a call; gRPC-Web's isn't."""
    return _IS_GRPC.fullmatch(content_type) is not None


def _understood(pairs: Iterable[tuple[bytes, bytes]]) -> CallHeaders:
    special = dict.fromkeys((b":method", b":path", b":scheme", b"content-type", b"grpc-encoding"), "")
    pseudo: set[bytes] = set()
    metadata: list[tuple[str, str | bytes]] = []
    size_bytes, timeout_s, wrong, malformed = 0, None, "", False
    regular = False
    for name, value in pairs:
        size_bytes += len(name) + len(value) + 32
        if name.startswith(b":"):
            malformed |= regular or name in pseudo or name not in _PSEUDO
            pseudo.add(name)
        else:
            regular = True
        if _BREAK.search(value):
            malformed = True
        elif name in special or name.startswith(b":"):
            special[name] = value.decode("latin-1")
        elif not _NAME.fullmatch(name) or name in _OF_CONNECTION or (name == b"te" and value != b"trailers"):
            malformed = True
        elif name == b"grpc-timeout":
            found = _TIMEOUT.fullmatch(value.decode("latin-1"))
            if found is None:
                wrong = f"grpc-timeout is {value!r}; expected up to 8 digits and one of H, M, S, m, u, n"
            else:
                timeout_s = int(found[1]) * _UNIT_S[found[2]]
        elif name.startswith(b"grpc-") or name in (b"te", b"accept-encoding", b"host"):
            pass
        elif name.endswith(b"-bin"):
            try:
                metadata += [(name.decode(), _unpacked(part)) for part in value.split(b",")]
            except binascii.Error:
                wrong = f"{name.decode()} isn't base64"
        else:
            metadata.append((name.decode(), value.decode("latin-1")))
    fault = (grpc.StatusCode.INVALID_ARGUMENT, wrong) if wrong else None
    if size_bytes > LARGEST_LIST_BYTES:
        reason = f"received metadata of {size_bytes} bytes; expected {LARGEST_LIST_BYTES} at most"
        fault = grpc.StatusCode.RESOURCE_EXHAUSTED, reason
    malformed |= not (special[b":method"] and special[b":path"] and special[b":scheme"])
    return CallHeaders(
        special[b":method"], special[b":path"], special[b"content-type"], special[b"grpc-encoding"],
        timeout_s, tuple(metadata), fault, malformed,
    )  # fmt: skip


def _unpacked(value: bytes) -> bytes:
    return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)


def _literal(name: str, value: str | bytes) -> bytes:
    """A header as HPACK's literal without indexing: the table stays empty, so blocks are constants."""
    if not _SENT_NAME.fullmatch(name.removeprefix(":")):
        raise ValueError(
            f"a header's name is {name!r}; expected lower-case letters, digits, '_', '-' and '.'"
        )
    if name.endswith("-bin"):
        raw = base64.b64encode(value.encode() if isinstance(value, str) else value).rstrip(b"=")
    else:
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not _SENT_VALUE.fullmatch(text):
            raise ValueError(f"the header {name} is {value!r}; expected printable ASCII")
        raw = text.encode()
    return b"\x00" + _length(len(name)) + name.encode() + _length(len(raw)) + raw


def _length(length: int) -> bytes:
    """HPACK's integer with a prefix of 7 bits (RFC 7541, section 5.1)."""
    if length < 0x7F:
        return bytes((length,))
    rest, encoded = length - 0x7F, bytearray((0x7F,))
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


# HPACK's "the table has no room from now on" (RFC 7541, section 6.3).
NO_TABLE = b"\x20"
# :status 200 is number 8 of the static table.
BEGINNING = (
    b"\x88"
    + _literal("content-type", "application/grpc")
    + _literal("grpc-accept-encoding", "identity,deflate,gzip")
)
"""The header block that an answer begins with."""
_OK = _literal("grpc-status", "0")


def ending(code: int, message: str = "", metadata: Metadata = ()) -> bytes:
    """The header block that an answer ends with.

    Args:
        code: gRPC's.
        message: for the caller; it is percent-encoded.
        metadata: the handler's own.

    Raises:
        ValueError: of metadata that HTTP doesn't carry.
    """
    parts = [_OK if not code else _literal("grpc-status", str(code))]
    if message:
        parts.append(_literal("grpc-message", quote(message, safe=_PLAIN, errors="replace")))
    parts += [_literal(name, value) for name, value in metadata]
    return b"".join(parts)


def refusal(http_status: int) -> bytes:
    """The header block of an answer to what is no gRPC call."""
    return _literal(":status", str(http_status)) + _literal("content-length", "0")
