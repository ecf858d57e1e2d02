"""A server with a few methods, and a peer that speaks to it in frames made by hand."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from hpack import Decoder, Encoder

from service.http2 import frames
from service.http2.frames import Code, Kind
from service.http2.limits import Limits
from service.http2.server import Http2Server

# Far longer than anything here takes: what hangs is to fail.
PATIENCE_S = 30.0
MIB = 1024 * 1024
LIMITS = Limits(message_bytes=4 * MIB, concurrent_calls=64)


@dataclass
class Handlers:
    """What the methods saw.

    Attributes:
        began: of `Sleep`.
        cancelled: likewise.
        cleaned: how often `Cleanup` came to its end.
        open: how many of `Count`'s generators aren't closed.
        closed_elsewhere: how many of them were by another task than their call's.
        metadata: of the last `Echo`.
        release: lets `Wait` and `Unread` answer.
        aside: the task in which `Aside` reads; the handler itself doesn't end it.
    """

    began: int = 0
    cancelled: int = 0
    cleaned: int = 0
    open: int = 0
    closed_elsewhere: int = 0
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    release: asyncio.Event = field(default_factory=asyncio.Event)
    aside: "asyncio.Task[Any] | None" = None

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.metadata = context.invocation_metadata()
        context.set_trailing_metadata((("x-size", str(len(request))), ("x-raw-bin", b"\x00\xff")))
        return request

    async def echoes(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str(sum([len(request) async for request in requests])).encode()

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        own = asyncio.current_task()
        self.open += 1
        try:
            for number in range(int(request)):
                yield b"%08d" % number
        finally:
            self.open -= 1
            self.closed_elsewhere += asyncio.current_task() is not own

    async def large(self, request: bytes, context: Any) -> bytes:
        return bytes(int(request))

    async def sleep(self, request: bytes, context: Any) -> bytes:
        self.began += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    async def stubborn(self, request: bytes, context: Any) -> bytes:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return b"too late"

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.began += 1
        await self.release.wait()
        return b"waited"

    async def unread(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.began += 1
        await self.release.wait()
        return str(sum([len(request) async for request in requests])).encode()

    async def read_aside(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.aside = asyncio.ensure_future(context.read())
        await asyncio.wait([self.aside])
        return b""

    async def abort(self, request: bytes, context: Any) -> bytes:
        self.began += 1
        await context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "à bientôt, 100 % ✓",
            (("grpc-retry-pushback-ms", "1"), ("x-why", "full")),
        )
        return b""

    async def cleanup(self, request: bytes, context: Any) -> bytes:
        self.began += 1
        try:
            await asyncio.Event().wait()
        finally:
            await self.release.wait()
            self.cleaned += 1
        return b""

    async def crash(self, request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError(request.decode())

    async def trailers(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-large", "v" * int(request)),))
        return b""

    async def bad_trailers(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-lines", "one\r\ntwo"),))
        return b"fine"

    def by_name(self) -> dict[str, Any]:
        """The methods as generated code would register them."""
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Echoes": grpc.stream_stream_rpc_method_handler(self.echoes),
            "Total": grpc.stream_unary_rpc_method_handler(self.total),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Large": grpc.unary_unary_rpc_method_handler(self.large),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
            "Stubborn": grpc.unary_unary_rpc_method_handler(self.stubborn),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Unread": grpc.stream_unary_rpc_method_handler(self.unread),
            "Aside": grpc.stream_unary_rpc_method_handler(self.read_aside),
            "Cleanup": grpc.unary_unary_rpc_method_handler(self.cleanup),
            "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
            "Crash": grpc.unary_unary_rpc_method_handler(self.crash),
            "Trailers": grpc.unary_unary_rpc_method_handler(self.trailers),
            "BadTrailers": grpc.unary_unary_rpc_method_handler(self.bad_trailers),
        }


@dataclass
class Running:
    """A server that serves.

    Attributes:
        server: it.
        handlers: its methods.
        port: on loopback.
    """

    server: Http2Server
    handlers: Handlers
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def running(limits: Limits = LIMITS, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Running]:
    """A server while the block runs; what reaches the loop's handler of exceptions fails it."""
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    server, handlers = Http2Server(limits), Handlers()
    server.add_registered_method_handlers("test.Test", handlers.by_name())
    port = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    try:
        yield Running(server, handlers, port)
    finally:
        handlers.release.set()
        await server.stop(None)
        await asyncio.sleep(0.01)  # for the last callbacks
    assert not escaped
    # None but this test's own: what a connection began has ended with it.
    assert not [task for task in asyncio.all_tasks() if "Call._run" in repr(task)]


@dataclass(frozen=True)
class Frame:
    """A frame that came."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def message(content: bytes, flag: int = 0) -> bytes:
    """As it goes into DATA."""
    return struct.pack(">BI", flag, len(content)) + content


def request_headers(method: str, **more: str) -> list[tuple[str, str]]:
    """Of a call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/test.Test/{method}"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


class Peer:
    """A connection to the server, in frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder, self.decoder = Encoder(), Decoder()

    @classmethod
    async def connect(cls, port: int, settings: dict[frames.Setting, int] | None = None) -> "Peer":
        """Connect and say hello."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        peer.send(frames.PREFACE + frames.settings(settings or {}))
        return peer

    def send(self, content: bytes) -> None:
        self.writer.write(content)

    def frame(self, kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> None:
        self.send(frames.frame(kind, flags, stream_id, payload))

    def begin(self, stream_id: int, method: str, flags: int = frames.END_HEADERS, **more: str) -> None:
        """A call's HEADERS."""
        self.frame(Kind.HEADERS, flags, stream_id, self.encoder.encode(request_headers(method, **more)))

    def call(self, stream_id: int, method: str, content: bytes = b"", **more: str) -> None:
        """A whole unary call."""
        self.begin(stream_id, method, frames.END_HEADERS, **more)
        self.frame(Kind.DATA, frames.END_STREAM, stream_id, message(content))

    async def next(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_S):
            high, low, kind, flags, stream_id = frames.unpack_header(await self.reader.readexactly(9))
            payload = await self.reader.readexactly(high << 16 | low)
        return Frame(kind, flags, stream_id, payload)

    async def until(self, kind: int, stream_id: int | None = None) -> Frame:
        """The next frame of that kind."""
        while True:
            found = await self.next()
            if found.kind == Kind.HEADERS:
                headers = self.decoder.decode(found.payload)  # in order: the table has to follow
                found = Frame(found.kind, found.flags, found.stream_id, repr(dict(headers)).encode())
            if found.kind == kind and stream_id in (None, found.stream_id):
                return found

    async def status(self, stream_id: int) -> str:
        """The call's, from its trailers."""
        while True:
            found = await self.until(Kind.HEADERS, stream_id)
            if found.flags & frames.END_STREAM:
                return found.payload.decode()

    async def pong(self) -> None:
        """Until the server has dealt with all that was sent."""
        self.frame(Kind.PING, payload=b"is it so")
        while (await self.until(Kind.PING)).payload != b"is it so":
            pass

    async def goaway(self) -> tuple[int, int, bytes]:
        """Last stream, code and reason of the next GOAWAY that names an error; then the connection's end."""
        while True:
            last, code = struct.unpack(">II", (found := await self.until(Kind.GOAWAY)).payload[:8])
            if code != Code.NO_ERROR:
                break
        await self.closed()
        return last, code, found.payload[8:]

    async def reset(self, stream_id: int) -> int:
        """The code of a stream's reset."""
        return int.from_bytes((await self.until(Kind.RST_STREAM, stream_id)).payload, "big")

    async def closed(self) -> None:
        """Until the server has closed; later frames are read and dropped."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionResetError):
                while await self.reader.read(65536):
                    pass

    async def leave(self) -> None:
        """Close."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port: int, settings: dict[frames.Setting, int] | None = None) -> AsyncIterator[Peer]:
    """A peer while the block runs."""
    peer = await Peer.connect(port, settings)
    try:
        yield peer
    finally:
        await peer.leave()


async def until(condition: Any) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.005)
