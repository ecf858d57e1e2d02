"""Who sends a unary call's message never is told so; who sends it at once, or a little later, is answered.

On the wire a unary call is a stream of one message: as such it is sent here.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from service import interceptors
from tests.service.one_method import METHOD, one_method

SECONDS = 30.0


async def behave(request: bytes, _: Any) -> bytes:
    return request


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
    async with one_method(behave, patience_s=0.2) as channel:
        call = channel.stream_unary(METHOD)(nothing(), timeout=timeout_s)
        with pytest.raises(grpc.aio.AioRpcError, match=r"message had not arrived after 0\.2 s") as raised:
            await asyncio.wait_for(call, SECONDS)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@TIMEOUTS
@pytest.mark.parametrize("messages", [at_once, later])
async def test_a_message_that_comes(timeout_s: float | None, messages: Any) -> None:
    async with one_method(behave, patience_s=SECONDS) as channel:
        call = channel.stream_unary(METHOD)(messages(), timeout=timeout_s)
        assert await asyncio.wait_for(call, SECONDS) == b"x"
