"""A connection, frame by frame: what HTTP/2 asks for, what breaks it, and what floods it."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.http2 import connection, frames
from service.http2.call import LOOKAHEAD_BYTES
from service.http2.frames import Code, Kind, Setting
from tests.service.http2.peer import LIMITS, MIB, Frame, Peer, connected, message, running, until

Violate = Callable[[Peer], None]
END_STREAM, END_HEADERS, PADDED = frames.END_STREAM, frames.END_HEADERS, frames.PADDED


def reset_at_close(connection_socket: socket.socket) -> None:
    """The other side sees no end of the stream, but a lost connection."""
    connection_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def open_call(peer: Peer) -> None:
    """Number 1, which stays open."""
    peer.begin(1, "Unread")


def after_open_call(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> Violate:
    def violate(peer: Peer) -> None:
        open_call(peer)
        peer.frame(kind, flags, stream_id, payload)

    return violate


def ended_call(kind: int) -> Violate:
    def violate(peer: Peer) -> None:
        peer.begin(1, "Wait")
        peer.frame(Kind.DATA, END_STREAM, 1, message(b""))
        if kind == Kind.DATA:
            peer.frame(Kind.DATA, 0, 1, b"more")
        else:
            peer.frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, peer.encoder.encode([("x-late", "1")]))

    return violate


def begin(stream_id: int) -> Violate:
    return lambda peer: peer.begin(stream_id, "Echo")


def begin_again(peer: Peer) -> None:
    peer.begin(5, "Unread")
    peer.begin(3, "Unread")


def not_continued(peer: Peer) -> None:
    peer.begin(1, "Echo", flags=0)
    peer.frame(Kind.PING, payload=bytes(8))


def data_in_a_block(peer: Peer) -> None:
    peer.begin(1, "Unread")
    peer.begin(3, "Echo", flags=0)
    peer.frame(Kind.DATA, 0, 1, b"x")


def endless_block(peer: Peer) -> None:
    peer.begin(1, "Echo", flags=0)
    for _ in range(5):
        peer.frame(Kind.CONTINUATION, 0, 1, bytes(16_000))


def empty_continuations(peer: Peer) -> None:
    peer.begin(1, "Echo", flags=0)
    peer.send(frames.frame(Kind.CONTINUATION, 0, 1) * 1000)


def too_much_data(peer: Peer) -> None:
    open_call(peer)
    peer.frame(Kind.DATA, 0, 1, struct.pack(">BI", 0, 4 * MIB))
    for _ in range(5):
        peer.frame(Kind.DATA, 0, 1, bytes(LOOKAHEAD_BYTES // 4))


def too_much_padding(peer: Peer) -> None:
    open_call(peer)
    peer.send(frames.frame(Kind.DATA, PADDED, 1, b"\xff" + bytes(255)) * 1025)


def window(more: int) -> bytes:
    return struct.pack(">I", more)


def on_a_server_s_stream(peer: Peer) -> None:
    peer.begin(3, "Unread")
    peer.frame(Kind.DATA, 0, 2, b"x")


def too_large_a_window(peer: Peer) -> None:
    open_call(peer)
    peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(2**31 - 1 - 65_535))
    peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 65_536}))


def sent(kind: int, flags: int, stream_id: int, payload: bytes) -> Violate:
    return lambda peer: peer.frame(kind, flags, stream_id, payload)


VIOLATIONS: dict[str, tuple[Violate, Code]] = {
    "DATA on stream 0": (after_open_call(Kind.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "DATA on an idle stream": (after_open_call(Kind.DATA, 0, 3, b"x"), Code.PROTOCOL_ERROR),
    "DATA on a server's stream": (on_a_server_s_stream, Code.PROTOCOL_ERROR),
    "DATA after END_STREAM": (ended_call(Kind.DATA), Code.STREAM_CLOSED),
    "HEADERS after END_STREAM": (ended_call(Kind.HEADERS), Code.STREAM_CLOSED),
    "trailers without END_STREAM": (
        after_open_call(Kind.HEADERS, END_HEADERS, 1, b"\x00\x01a\x01b"), Code.PROTOCOL_ERROR
    ),
    "padding longer than DATA": (after_open_call(Kind.DATA, PADDED, 1, b"\x02a"), Code.PROTOCOL_ERROR),
    "padding of nothing": (after_open_call(Kind.DATA, PADDED, 1), Code.PROTOCOL_ERROR),
    "padding longer than HEADERS": (
        sent(Kind.HEADERS, PADDED | END_HEADERS, 1, b"\x09\x88"), Code.PROTOCOL_ERROR
    ),
    "HEADERS without their priority": (
        sent(Kind.HEADERS, frames.HAS_PRIORITY | END_HEADERS, 1, b"\x88"), Code.FRAME_SIZE_ERROR
    ),
    "HEADERS on stream 0": (begin(0), Code.PROTOCOL_ERROR),
    "HEADERS on a server's stream": (begin(2), Code.PROTOCOL_ERROR),
    "a stream's number again": (begin_again, Code.PROTOCOL_ERROR),
    "an undecodable block": (sent(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "a block that isn't continued": (not_continued, Code.PROTOCOL_ERROR),
    "DATA within a block": (data_in_a_block, Code.PROTOCOL_ERROR),
    "CONTINUATION of nothing": (after_open_call(Kind.CONTINUATION, END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "an endless block": (endless_block, Code.ENHANCE_YOUR_CALM),
    "empty CONTINUATIONs": (empty_continuations, Code.ENHANCE_YOUR_CALM),
    "RST_STREAM on stream 0": (after_open_call(Kind.RST_STREAM, 0, 0, bytes(4)), Code.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (after_open_call(Kind.RST_STREAM, 0, 3, bytes(4)), Code.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (after_open_call(Kind.RST_STREAM, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    "PING of 7 bytes": (after_open_call(Kind.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "PING on a stream": (after_open_call(Kind.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "PRIORITY on stream 0": (after_open_call(Kind.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "PRIORITY of 4 bytes": (after_open_call(Kind.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (after_open_call(Kind.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (after_open_call(Kind.GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (after_open_call(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "SETTINGS on a stream": (after_open_call(Kind.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (after_open_call(Kind.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "an ACK that says something": (sent(Kind.SETTINGS, frames.ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 3 bytes": (after_open_call(Kind.WINDOW_UPDATE, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of the connection by 0": (
        after_open_call(Kind.WINDOW_UPDATE, 0, 0, window(0)), Code.PROTOCOL_ERROR
    ),
    "WINDOW_UPDATE of an idle stream": (
        after_open_call(Kind.WINDOW_UPDATE, 0, 3, window(1)), Code.PROTOCOL_ERROR
    ),
    "WINDOW_UPDATE beyond 2^31 - 1": (
        after_open_call(Kind.WINDOW_UPDATE, 0, 0, window(2**31 - 1)), Code.FLOW_CONTROL_ERROR
    ),
    "SETTINGS that make a window too large": (too_large_a_window, Code.FLOW_CONTROL_ERROR),
    "more DATA than allowed": (too_much_data, Code.FLOW_CONTROL_ERROR),
    "more padding than allowed": (too_much_padding, Code.FLOW_CONTROL_ERROR),
    "a frame that is too large": (
        lambda peer: peer.send(frames.header(Kind.DATA, 0, 1, MIB + 1)), Code.FRAME_SIZE_ERROR
    ),
    "an extension that is too large": (
        lambda peer: peer.send(frames.header(99, 0, 0, MIB)), Code.ENHANCE_YOUR_CALM
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_ends_its_connection_and_no_other(name: str) -> None:
    violate, code = VIOLATIONS[name]
    async with running() as served, connected(served.port) as other, connected(served.port) as peer:
        other.call(1, "Wait")
        violate(peer)
        assert (await peer.goaway())[1] == code
        served.handlers.release.set()
        assert "'grpc-status': '0'" in await other.status(1)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        frames.PREFACE + frames.frame(Kind.PING, 0, 0, bytes(8)),
        frames.PREFACE + frames.frame(Kind.HEADERS, END_HEADERS, 1, b"\x88"),
    ],
)
async def test_what_doesn_t_begin_as_http_2_is_refused(beginning: bytes) -> None:
    async with running() as served:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", served.port))
        peer.send(beginning)
        assert (await peer.goaway())[1] == Code.PROTOCOL_ERROR
        await peer.leave()


async def test_whoever_says_nothing_is_let_go() -> None:
    async with running(replace(LIMITS, preface_s=0.05)) as served, connected(served.port) as greeted:
        silent = Peer(*await asyncio.open_connection("127.0.0.1", served.port))
        await silent.closed()
        await silent.leave()
        greeted.call(1, "Echo", b"a")
        assert "'grpc-status': '0'" in await greeted.status(1)


async def test_one_byte_at_a_time() -> None:
    async with running() as served, connected(served.port) as peer:
        block = peer.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/test.Test/Echo"),
                                     ("content-type", "application/grpc")])  # fmt: skip
        padded = b"\x03" + message(b"one byte")[:4] + bytes(3)
        content = [
            frames.frame(Kind.HEADERS, 0, 1, block[:10]),
            frames.frame(Kind.CONTINUATION, 0, 1, block[10:]),
            frames.frame(Kind.CONTINUATION, END_HEADERS, 1),
            frames.frame(Kind.DATA, PADDED, 1, padded),
            frames.frame(Kind.DATA, 0, 1),
            frames.frame(99, 0xFF, 1, b"an extension"),
            frames.frame(Kind.PRIORITY, 0, 7, bytes(5)),
            frames.frame(Kind.DATA, END_STREAM | PADDED, 1, b"\x00" + message(b"one byte")[4:]),
        ]
        for byte in b"".join(content):
            peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await peer.until(Kind.DATA)).payload == message(b"one byte")
        assert "'grpc-status': '0'" in await peer.status(1)


async def test_an_answer_goes_in_one_piece() -> None:
    async with running() as served, connected(served.port) as peer:
        await peer.pong()
        (held,) = served.server._connections
        held._transport = transport = Mock(wraps=held._transport)
        peer.call(1, "Echo", b"abc")
        kinds = [(await peer.next()).kind for _ in range(3)]
        assert kinds == [Kind.HEADERS, Kind.DATA, Kind.HEADERS]
        transport.write.assert_called_once()


async def test_a_large_block_is_continued() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Trailers", b"40000")
        await peer.until(Kind.DATA)
        parts = [await peer.next() for _ in range(3)]
        assert [(part.kind, part.flags) for part in parts] == [
            (Kind.HEADERS, END_STREAM),
            (Kind.CONTINUATION, 0),
            (Kind.CONTINUATION, END_HEADERS),
        ]
        block = b"".join(part.payload for part in parts)
        assert (b"x-large", b"v" * 40_000) in map(tuple, peer.decoder.decode(block, raw=True))


async def test_padded_headers_with_a_priority() -> None:
    async with running() as served, connected(served.port) as peer:
        block = peer.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/test.Test/Echo"),
                                     ("content-type", "application/grpc")])  # fmt: skip
        flags = END_HEADERS | PADDED | frames.HAS_PRIORITY
        peer.frame(Kind.HEADERS, flags, 1, b"\x02" + bytes(5) + block + bytes(2))
        peer.frame(Kind.DATA, END_STREAM, 1, message(b"a"))
        assert (await peer.until(Kind.DATA)).payload == message(b"a")


async def test_trailers_end_a_request() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Total")
        peer.frame(Kind.DATA, 0, 1, message(b"abc"))
        peer.frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, peer.encoder.encode([("x-a", "1")]))
        assert (await peer.until(Kind.DATA)).payload == message(b"3")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "text/html"}, "415"),
        ({"content-type": "application/grpc-web"}, "415"),
        ({":path": "/test.Test/Nothing"}, "'grpc-status': '12'"),
        ({"grpc-timeout": "soon"}, "'grpc-status': '3'"),
        ({"x-large": "v" * 20_000}, "'grpc-status': '8'"),
    ],
)
async def test_what_is_no_call_here(more: dict[str, str], said: str) -> None:
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/test.Test/Echo",
        "content-type": "application/grpc",
        **more,
    }
    async with running() as served, connected(served.port) as peer:
        block = peer.encoder.encode(list(pairs.items()))
        peer.frame(Kind.HEADERS, END_HEADERS, 1, block)
        assert said in await peer.status(1)
        assert await peer.reset(1) == Code.NO_ERROR
        peer.frame(Kind.DATA, END_STREAM, 1, message(b"too late"))  # nobody minds
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_a_malformed_request_ends_alone() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Echo", connection="close")
        assert await peer.reset(1) == Code.PROTOCOL_ERROR
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (message(b"abc")[:-1], "13"),
        (b"\x00\x00", "13"),
        (b"\x07" + message(b"")[1:], "13"),
        (struct.pack(">BI", 0, 5 * MIB), "8"),
        (message(b"a", flag=1), "13"),
        (b"", "13"),
    ],
)
async def test_requests_that_aren_t_grpc_s(content: bytes, status: str) -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Echo")
        peer.frame(Kind.DATA, END_STREAM, 1, content)
        assert f"'grpc-status': '{status}'" in await peer.status(1)
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_a_window_of_one_byte() -> None:
    async with running() as served, connected(served.port, {Setting.INITIAL_WINDOW_SIZE: 1}) as peer:
        peer.call(1, "Echo", b"abc")
        came = (await peer.until(Kind.DATA, 1)).payload
        while len(came) < 8:
            await peer.pong()  # nothing more comes unasked
            peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(1))
            data = await peer.until(Kind.DATA, 1)
            assert len(data.payload) == 1
            came += data.payload
        assert came == message(b"abc")
        assert "'grpc-status': '0'" in await peer.status(1)


async def test_a_window_that_becomes_negative() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(MIB))
        peer.call(1, "Large", b"100000")
        came = 0
        while came < 65_535:
            came += len((await peer.until(Kind.DATA, 1)).payload)
        assert came == 65_535
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))  # -65,525
        peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(65_525))  # 0
        await peer.pong()
        peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(3))
        assert len((await peer.until(Kind.DATA, 1)).payload) == 3
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 14}))
        assert len((await peer.until(Kind.DATA, 1)).payload) == 4


async def test_the_connection_s_window_holds_all_calls() -> None:
    async with running() as served, connected(served.port, {Setting.INITIAL_WINDOW_SIZE: MIB}) as peer:
        peer.call(1, "Large", b"65530")  # with its prefix the whole window
        assert "'grpc-status': '0'" in await peer.status(1)
        peer.call(3, "Echo", b"abc")
        peer.call(5, "Echo", b"abc")
        await peer.pong()
        peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(16))
        assert "'grpc-status': '0'" in await peer.status(3)
        assert "'grpc-status': '0'" in await peer.status(5)


@pytest.mark.parametrize(("more", "code"), [(0, Code.PROTOCOL_ERROR), (2**31 - 1, Code.FLOW_CONTROL_ERROR)])
async def test_a_wrong_window_of_a_call_ends_it_alone(more: int, code: Code) -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        await until(lambda: served.handlers.began)
        peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(more))
        assert await peer.reset(1) == code
        await until(lambda: served.handlers.cancelled)
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_large_frames_only_where_they_are_wanted() -> None:
    async with running() as served:
        for largest in (16_384, 40_000):
            wants = {Setting.MAX_FRAME_SIZE: largest, Setting.INITIAL_WINDOW_SIZE: MIB}
            async with connected(served.port, wants) as peer:
                peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(MIB))
                peer.call(1, "Large", b"100000")
                assert len((await peer.until(Kind.DATA, 1)).payload) == largest


async def test_a_peer_without_a_header_table_is_told_that_there_is_none() -> None:
    async with running() as served, connected(served.port, {Setting.HEADER_TABLE_SIZE: 0}) as peer:
        peer.decoder.max_allowed_table_size = 0
        peer.call(1, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(1)  # it couldn't be decoded otherwise
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_unread_bodies_stay_with_their_sender() -> None:
    async with running() as served, connected(served.port) as peer:
        open_call(peer)
        size = LOOKAHEAD_BYTES
        stream = message(bytes(3 * size))
        peer.frame(Kind.DATA, 0, 1, stream[: size // 2])
        peer.frame(Kind.DATA, 0, 1, stream[size // 2 : size])
        await until(lambda: served.handlers.began)
        peer.frame(Kind.PING, payload=b"no more?")
        while (found := await peer.next()).payload != b"no more?":
            assert found.kind != Kind.WINDOW_UPDATE or found.stream_id == 0
        served.handlers.release.set()
        allowed = await peer.until(Kind.WINDOW_UPDATE, 1)
        assert int.from_bytes(allowed.payload, "big") >= 2 * size + 5  # the message can come whole
        for begin_at in range(size, len(stream), 16_384):
            peer.frame(Kind.DATA, 0, 1, stream[begin_at : begin_at + 16_384])
        peer.frame(Kind.DATA, END_STREAM, 1)
        assert (await peer.until(Kind.DATA)).payload == message(str(3 * size).encode())


async def test_padding_is_given_back() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Total")
        peer.send(frames.frame(Kind.DATA, PADDED, 1, b"\xff" + bytes(255)) * 600)
        allowed = int.from_bytes((await peer.until(Kind.WINDOW_UPDATE, 1)).payload, "big")
        assert allowed >= LOOKAHEAD_BYTES // 2
        peer.frame(Kind.DATA, END_STREAM, 1, message(b"ab"))
        assert (await peer.until(Kind.DATA)).payload == message(b"2")


async def test_a_peer_that_never_reads_is_read_no_more() -> None:
    async with running() as served, connected(served.port) as peer:
        await peer.pong()
        (held,) = served.server._connections
        transport = held._transport
        assert transport is not None
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's stubs give the base class
        sent, ping = 0, frames.frame(Kind.SETTINGS, 0, 0) * 5000
        while not held._full:
            peer.send(ping)
            sent += len(ping)
            assert sent < 400 * MIB
            await asyncio.sleep(0)
        before = peer.writer.transport.get_write_buffer_size()
        peer.send(ping * 100)
        for _ in range(100):
            await asyncio.sleep(0)
        # What was said in answer to one read at most is added to what fills it.
        assert transport.get_write_buffer_size() < 3 * MIB
        assert peer.writer.transport.get_write_buffer_size() > before
        peer.writer.transport.abort()
        await until(lambda: not served.server._connections)


async def test_answers_wait_for_a_peer_that_doesn_t_read() -> None:
    wants = {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_FRAME_SIZE: MIB}
    async with (
        running(replace(LIMITS, message_bytes=64 * MIB)) as served,
        connected(served.port, wants) as peer,
    ):
        peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(2**31 - 1 - 65_535))
        await peer.pong()
        (held,) = served.server._connections
        transport = held._transport
        assert transport is not None
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's stubs give the base class
        peer.call(1, "Large", str(64 * MIB).encode())
        await until(lambda: held._full)
        assert transport.get_write_buffer_size() < 3 * MIB
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
        came = 0
        while came < 64 * MIB + 5:
            came += len((await peer.until(Kind.DATA, 1)).payload)
        assert "'grpc-status': '0'" in await peer.status(1)


async def test_more_calls_than_agreed_are_refused_so_that_they_are_retried() -> None:
    async with running(replace(LIMITS, concurrent_calls=2)) as served, connected(served.port) as peer:
        for stream_id in (1, 3, 5):
            peer.call(stream_id, "Wait")
        assert await peer.reset(5) == Code.REFUSED_STREAM
        served.handlers.release.set()
        assert "'grpc-status': '0'" in await peer.status(1)
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_a_flood_of_calls_and_resets_starts_few_handlers() -> None:
    async with running(replace(LIMITS, concurrent_calls=10)) as served, connected(served.port) as peer:
        await peer.pong()
        (held,) = served.server._connections
        most = 0
        for stream_id in range(1, 4001, 2):
            peer.begin(stream_id, "Sleep")
            peer.frame(Kind.RST_STREAM, 0, stream_id, window(Code.CANCEL))
            if stream_id % 100 == 1:
                await asyncio.sleep(0)
                most = max(most, len(held._handlers))
        await peer.pong()
        assert most <= 20
        await until(lambda: not held._handlers)
        assert not held._calls
        peer.call(4001, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(4001)


async def test_settings_are_applied_once_per_frame() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        await until(lambda: served.handlers.began)
        (held,) = served.server._connections
        (call,) = held._calls.values()
        payload = b"".join(
            struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, value) for value in (2**31 - 1, 0, 7)
        )
        peer.frame(Kind.SETTINGS, 0, 0, payload)
        await peer.until(Kind.SETTINGS)
        await peer.pong()
        assert call.send_window == 7


async def test_too_many_pings() -> None:
    async with running() as served, connected(served.port) as peer:
        for _ in range(3):
            await peer.pong()
        peer.frame(Kind.PING, payload=bytes(8))
        assert (await peer.goaway())[1:] == (Code.ENHANCE_YOUR_CALM, b"too_many_pings")


async def test_pings_between_answers_are_welcome() -> None:
    async with running() as served, connected(served.port) as peer:
        for stream_id in range(1, 20, 2):
            await peer.pong()
            await peer.pong()
            peer.call(stream_id, "Echo", b"a")
            assert "'grpc-status': '0'" in await peer.status(stream_id)


async def test_pings_while_something_is_taken_in_are_welcome() -> None:
    async with running() as served, connected(served.port) as peer:
        for _ in range(10):
            await peer.pong()
            peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(1))


async def test_only_pings_in_a_row_are_too_many() -> None:
    async with running(replace(LIMITS, ping_interval_s=0.1)) as served, connected(served.port) as peer:
        for _ in range(4):
            await peer.pong()
            await peer.pong()
            await asyncio.sleep(0.11)


async def test_pings_that_are_rare_enough() -> None:
    async with running(replace(LIMITS, ping_interval_s=0.0)) as served, connected(served.port) as peer:
        for _ in range(20):
            await peer.pong()


async def test_a_peer_that_is_silent_is_asked_and_then_given_up() -> None:
    limits = replace(LIMITS, ping_every_s=0.05, ping_timeout_s=0.05)
    async with running(limits) as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        asked = await peer.until(Kind.PING)
        assert not asked.flags
        peer.frame(Kind.PING, frames.ACK, 0, asked.payload)
        await peer.until(Kind.PING)  # it answered, so it is asked again
        await peer.closed()
        await until(lambda: served.handlers.cancelled)


async def test_a_peer_that_leaves_cancels_its_calls() -> None:
    async with running() as served:
        for leave in ("abort", "close", "write_eof"):
            async with connected(served.port) as peer:
                began, cancelled = served.handlers.began, served.handlers.cancelled
                peer.call(1, "Sleep")
                await until(lambda began=began: served.handlers.began > began)
                getattr(peer.writer.transport, leave)()
                await until(lambda cancelled=cancelled: served.handlers.cancelled > cancelled)
                await until(lambda: not served.server._connections)


@pytest.mark.parametrize("how", ["reset", "deadline", "cut short", "lost"])
async def test_a_reader_of_a_call_that_has_ended_ends_too(how: str) -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Aside", END_HEADERS, **({"grpc_timeout": "50m"} if how == "deadline" else {}))
        await until(lambda: served.handlers.aside is not None)
        if how == "reset":
            peer.frame(Kind.RST_STREAM, 0, 1, window(Code.CANCEL))
        elif how == "cut short":
            peer.frame(Kind.DATA, END_STREAM, 1, message(b"abc")[:-1])
        elif how == "lost":
            peer.writer.transport.abort()
        reader = served.handlers.aside
        assert reader is not None
        await until(reader.done)
        assert reader.cancelled()  # and no end of the stream, which some act upon


async def test_a_reset_cancels_before_the_handler_begins() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Sleep")
        peer.frame(Kind.RST_STREAM, 0, 1, window(Code.CANCEL))
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)
        (held,) = served.server._connections
        await until(lambda: not held._handlers)
        assert not held._calls


async def test_a_violation_cancels_the_calls_and_nothing_follows() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        await until(lambda: served.handlers.began)
        (held,) = served.server._connections
        peer.frame(Kind.PING, 0, 0, b"short")
        last, code, _ = await peer.goaway()
        assert (last, code) == (1, Code.FRAME_SIZE_ERROR)
        await until(lambda: served.handlers.cancelled)
        assert not held._timers


async def test_nothing_is_left_of_a_connection() -> None:
    async with running() as served:
        async with connected(served.port) as peer:
            peer.call(1, "Sleep", grpc_timeout="9H")
            await until(lambda: served.handlers.began)
            (held,) = served.server._connections
            timer = next(iter(held._calls.values()))._timer
        await until(lambda: not served.server._connections and not held._handlers)
        await until(lambda: timer is not None and timer.cancelled())
        assert not held._timers
        assert not held._calls


async def test_going_away_in_two_steps() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Wait")
        await until(lambda: served.handlers.began)
        stopping = asyncio.ensure_future(served.server.stop(30))
        assert (await peer.until(Kind.GOAWAY)).payload == struct.pack(">II", 2**31 - 1, 0)
        asked = await peer.until(Kind.PING)
        peer.call(3, "Echo", b"on its way")  # it was, when the peer read that
        assert "'grpc-status': '0'" in await peer.status(3)
        peer.frame(Kind.PING, frames.ACK, 0, asked.payload)
        assert (await peer.until(Kind.GOAWAY)).payload == struct.pack(">II", 3, 0)
        peer.call(5, "Echo", b"never served")
        served.handlers.release.set()
        assert "'grpc-status': '0'" in await peer.status(1)
        await peer.closed()
        await stopping


async def test_nothing_is_left_of_a_connection_that_was_going() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        await until(lambda: served.handlers.began)
        (held,) = served.server._connections
        stopping = asyncio.ensure_future(served.server.stop(30))
        asked = await peer.until(Kind.PING)
        peer.frame(Kind.PING, frames.ACK, 0, asked.payload)
        await peer.until(Kind.GOAWAY)
        reset_at_close(peer.writer.get_extra_info("socket"))
        peer.writer.transport.abort()
        await stopping
        await until(lambda: not held._handlers)
        assert not held._timers


@pytest.mark.parametrize("close_s", [0.05, 1000.0])
@pytest.mark.parametrize("how", ["end", "violation"])
async def test_whoever_ends_without_reading_is_not_waited_for(
    how: str, close_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_CLOSE_S", close_s)
    async with (
        running(replace(LIMITS, message_bytes=64 * MIB)) as served,
        connected(served.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer,
    ):
        peer.frame(Kind.WINDOW_UPDATE, 0, 0, window(2**30))
        await peer.pong()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's stubs give the base class
        peer.call(1, "Large", str(64 * MIB).encode())
        peer.call(3, "Sleep")
        await until(lambda: served.handlers.began)
        (held,) = served.server._connections
        transport, left = held._transport, held._send_window
        assert transport is not None
        while transport.get_write_buffer_size() < 100_000:  # what lies there is neither sent nor too much
            peer.frame(Kind.WINDOW_UPDATE, 0, 1, window(100_000))
            left -= 100_000
            await until(lambda left=left: held._send_window == left)
            await asyncio.sleep(0.01)  # uvloop keeps what it is given until the end of its turn
        if how == "end":
            peer.writer.write_eof()
        else:
            peer.frame(Kind.PUSH_PROMISE, 0, 1)
        await until(lambda: served.handlers.cancelled)
        if close_s > 1:  # it was told what comes, and may read that yet
            assert held in served.server._connections
        else:
            await until(lambda: not served.server._connections)


async def test_a_stop_at_once_names_the_last_call_at_once() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Sleep")
        await until(lambda: served.handlers.began)
        await peer.pong()
        stopping = asyncio.ensure_future(served.server.stop(None))
        said = [await peer.next() for _ in range(4)]
        assert [frame.kind for frame in said] == [Kind.GOAWAY, Kind.PING, Kind.GOAWAY, Kind.HEADERS]
        assert said[2].payload == struct.pack(">II", 1, 0)
        await stopping


async def test_a_fault_after_going_away_takes_no_more_than_was_said() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Wait")
        await until(lambda: served.handlers.began)
        stopping = asyncio.ensure_future(served.server.stop(30))
        asked = await peer.until(Kind.PING)
        peer.frame(Kind.PING, frames.ACK, 0, asked.payload)
        peer.call(7, "Echo", b"never served")
        peer.frame(Kind.PUSH_PROMISE, 0, 1)
        assert (await peer.goaway())[0] == 1
        await stopping


async def test_a_peer_that_goes_away_still_gets_its_answers() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Wait")
        peer.frame(Kind.GOAWAY, 0, 0, bytes(8))
        peer.call(3, "Echo", b"a")  # it takes no streams of ours; its own may begin
        assert "'grpc-status': '0'" in await peer.status(3)
        served.handlers.release.set()
        assert "'grpc-status': '0'" in await peer.status(1)
        await peer.closed()


async def test_a_peer_that_goes_away_idle_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as served, connected(served.port) as peer:
        # Of what it sends after that nothing is answered: asyncio logs what is written after the close.
        peer.send(frames.frame(Kind.GOAWAY, 0, 0, bytes(8)) + frames.settings({}) * 20)
        await peer.closed()
    assert not caplog.records


async def test_a_deadline_doesn_t_disturb_who_was_cancelled_before() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, "Cleanup", grpc_timeout="100m")
        await until(lambda: served.handlers.began)
        (held,) = served.server._connections
        timer = held._calls[1]._timer
        assert timer is not None
        peer.frame(Kind.RST_STREAM, 0, 1, window(Code.CANCEL))
        await until(lambda: asyncio.get_running_loop().time() > timer.when() + 0.05)
        served.handlers.release.set()
        await until(lambda: not held._handlers)
        assert served.handlers.cleaned == 1


async def test_old_connections_go() -> None:
    limits = replace(LIMITS, age_s=0.05, grace_s=0.05)
    async with running(limits) as served, connected(served.port) as idle, connected(served.port) as busy:
        busy.call(1, "Sleep")
        await idle.until(Kind.GOAWAY)
        await busy.until(Kind.GOAWAY)
        await busy.closed()
        await until(lambda: served.handlers.cancelled)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert connection._is_loopback(host) == loopback


async def test_a_peer_that_is_gone_before_it_is_served() -> None:
    async with running() as served:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", served.port)) as gone:
                reset_at_close(gone)
        async with connected(served.port) as peer:
            peer.call(1, "Echo", b"a")
            assert "'grpc-status': '0'" in await peer.status(1)


FRAMES = st.builds(
    Frame,
    st.sampled_from([*Kind, 99]),
    st.sampled_from([0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, PADDED, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5]),
    st.one_of(st.binary(max_size=20), st.sampled_from([bytes(8), window(1), b"\x83\x86\x44\x00"])),
)


@settings(max_examples=25)
@given(st.lists(st.lists(FRAMES, max_size=8), max_size=20))
def test_no_frames_whatever_upset_the_server(peers: list[list[Frame]]) -> None:
    async def serve() -> None:
        async with running() as served:
            for sent in peers:
                async with connected(served.port) as peer:
                    peer.call(1, "Echo", b"a")
                    for each in sent:
                        peer.frame(each.kind, each.flags, each.stream_id, each.payload)
                    peer.writer.write_eof()
                    await peer.closed()
            async with connected(served.port) as peer:
                peer.call(1, "Echo", b"a")
                assert "'grpc-status': '0'" in await peer.status(1)

    asyncio.run(serve())


async def test_an_ended_call_keeps_nothing_of_a_body_that_still_comes() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Echo", grpc_timeout="100m")
        peer.send(frames.header(Kind.DATA, 0, 1, 200_000) + message(bytes(MIB))[:100_000])
        await peer.status(1)
        (held,) = served.server._connections
        assert held._data is None
        peer.send(bytes(100_000))
        peer.call(3, "Echo", b"a")
        assert "'grpc-status': '0'" in await peer.status(3)


async def test_a_handler_that_writes_as_its_caller_leaves_is_cancelled() -> None:
    async with running() as served, connected(served.port) as peer:
        peer.begin(1, "Echoes")
        peer.frame(Kind.DATA, 0, 1, message(b"a"))
        await peer.until(Kind.DATA, 1)
        (held,) = served.server._connections
        (call,) = held._calls.values()
        held._forget(call)  # in the same turn of the loop as
        with pytest.raises(asyncio.CancelledError):
            await call.write(b"b")
        call.leave()
