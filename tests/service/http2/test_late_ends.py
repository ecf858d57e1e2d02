"""Who is answered before having said everything: proxies pass a reset on behind the answer, as a failure."""

import asyncio
import struct

import pytest

from service.http2 import frames
from service.http2.frames import Code, Kind, Setting
from service.http2.late_ends import LateEnds
from tests.service.http2.peer import Peer, connected, message, request_headers, running


async def resets_until_pong(peer: Peer) -> list[int]:
    """The streams that were reset before the server answered a ping."""
    peer.frame(Kind.PING, payload=b"is it so")
    found = []
    while (frame := await peer.next()).kind != Kind.PING:
        if frame.kind == Kind.RST_STREAM:
            found.append(frame.stream_id)
    return found


@pytest.mark.parametrize("method", ["Echo", "Nothing"], ids=["answered", "unknown method"])
@pytest.mark.parametrize("end", ["empty DATA", "trailers", "reset"])
async def test_an_end_that_comes_late_is_waited_for(method: str, end: str) -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, method)
        peer.frame(Kind.DATA, 0, 1, message(b"all there is"))
        await peer.status(1)
        if end == "empty DATA":
            peer.frame(Kind.DATA, frames.END_STREAM, 1)
        elif end == "reset":
            peer.frame(Kind.RST_STREAM, 0, 1, struct.pack(">I", Code.CANCEL))
        else:
            block = peer.encoder.encode([("x-end", "1")])
            peer.frame(Kind.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block)
        assert await resets_until_pong(peer) == []
        (connection,) = served.server._connections
        assert not connection._late_ends._timers


async def test_one_that_never_comes_is_not() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Echo")
        peer.frame(Kind.DATA, 0, 1, message(b"and more"))
        await peer.status(1)
        assert await peer.reset(1) == Code.NO_ERROR


async def test_of_too_many_the_oldest_is_given_up_at_once() -> None:
    given_up: list[int] = []
    ends = LateEnds(asyncio.get_running_loop(), given_up.append)
    for stream_id in range(1, 2 * (1024 + 2), 2):
        ends.expect(stream_id)
    assert given_up == [1, 3]
    ends.came(5)
    ends.expect(9999)
    assert given_up == [1, 3]
    ends.close()


async def test_the_smallest_table_size_of_several_is_acknowledged() -> None:
    async with running() as served, connected(served.port) as peer:
        sizes = struct.pack(">HIHI", Setting.HEADER_TABLE_SIZE, 0, Setting.HEADER_TABLE_SIZE, 4096)
        peer.frame(Kind.SETTINGS, payload=sizes)
        peer.call(1, "Echo", b"a")
        while (found := await peer.next()).kind != Kind.HEADERS:
            pass
        assert found.payload[0] == 0x20  # a table size of 0 (RFC 7541, section 6.3)
        await peer.until(Kind.DATA)


async def test_a_handler_whose_caller_left_at_once_has_begun() -> None:
    """Else the call would be in no metric and no log."""
    async with running() as served, connected(served.port) as peer:
        headers = peer.encoder.encode(request_headers("Unread"))
        begin = frames.frame(Kind.HEADERS, frames.END_HEADERS, 1, headers)
        peer.send(begin + frames.reset(1, Code.CANCEL))
        await peer.pong()
        assert served.handlers.began == 1


async def test_encodings_are_listed_without_blanks() -> None:
    """grpc-js takes what stands between the commas as it is."""
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Echo", b"a")
        assert (
            b"'grpc-accept-encoding': 'identity,deflate,gzip'" in (await peer.until(Kind.HEADERS, 1)).payload
        )
