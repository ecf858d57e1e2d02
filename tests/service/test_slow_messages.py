"""Who sends a unary call's message never, or slowly, is told so; who sends it at once is answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from service import interceptors
from service.arrivals import Arrivals
from service.http2.limits import Limits
from service.http2.server import Http2Server
from service.interceptors import RequestInterceptor
from service.metrics import Metrics

SECONDS = 30.0


@asynccontextmanager
async def asking(patience_s: float) -> AsyncIterator[Any]:
    """A method that gives its message back, of a server that waits so long for it."""

    async def behave(request: bytes, _: Any) -> bytes:
        return request

    interceptor = RequestInterceptor(
        Metrics(), lambda *_: None, Arrivals(1_000_000, 100_000, 10), default_timeout_s=patience_s
    )
    server = Http2Server(Limits(message_bytes=100_000, concurrent_calls=10), interceptor.wrap)
    handler = grpc.unary_unary_rpc_method_handler(
        behave, request_deserializer=lambda data: data, response_serializer=lambda data: data
    )
    server.add_registered_method_handlers("fovea.v1.Test", {"Ask": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            # On the wire a unary call is a stream of one message.
            yield channel.stream_unary("/fovea.v1.Test/Ask")
    finally:
        await server.stop(None)


async def nothing() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b"never"


async def later() -> AsyncIterator[bytes]:
    await asyncio.sleep(0.05)
    yield b"x"


async def at_once() -> AsyncIterator[bytes]:
    yield b"x"


# None: the server's own patience. More than a minute would be too much of a caller's own.
TIMEOUTS = pytest.mark.parametrize("timeout_s", [None, 1000.0])


@TIMEOUTS
async def test_a_message_that_never_comes(timeout_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "_LONGEST_READ_S", 0.2)
    async with asking(patience_s=0.2) as ask:
        with pytest.raises(grpc.aio.AioRpcError, match=r"message had not arrived after 0\.2 s") as raised:
            await asyncio.wait_for(ask(nothing(), timeout=timeout_s), SECONDS)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@TIMEOUTS
@pytest.mark.parametrize("messages", [at_once, later])
async def test_a_message_that_comes(timeout_s: float | None, messages: Any) -> None:
    async with asking(patience_s=SECONDS) as ask:
        assert await asyncio.wait_for(ask(messages(), timeout=timeout_s), SECONDS) == b"x"
