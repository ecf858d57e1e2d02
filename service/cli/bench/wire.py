"""The connections: bytes out, bytes in, and how each call ended. No message is built or copied here twice."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from service.cli.bench.methods import MALFORMED_REPLY, Method, Reply, stream_fields

_MAX_MESSAGE_BYTES = 1024**3
_CLOSE_S = 2.0
_PUSH_BACK = "grpc-retry-pushback-ms"
_OPTIONS: list[tuple[str, int]] = [
    # Each channel has a connection of its own; else all of them would share one.
    ("grpc.use_local_subchannel_pool", 1),
    # A refusal is a result here, and to be counted.
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def open_channel(address: str) -> grpc.aio.Channel:
    """A connection of its own, without retries."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class UnaryLane:
    """Calls of a unary method on one connection."""

    def __init__(self, channel: grpc.aio.Channel, method: Method, per_message: int) -> None:
        self._call: Any = channel.unary_unary(method.path)  # bytes in, bytes out
        self._read, self._per_message = method.read, per_message

    async def exchange(self, message: bytes, deadline_s: float | None, patience_s: float) -> Reply:
        """Make one call.

        Args:
            message: the serialised request.
            deadline_s: told to the server; None: it isn't told any.
            patience_s: how long to wait at most where there is no deadline.
        """
        try:
            if deadline_s is not None:
                data = await self._call(message, timeout=deadline_s)
            else:
                async with asyncio.timeout(patience_s):
                    data = await self._call(message)
        except grpc.aio.AioRpcError as error:
            return _ended(error)
        except TimeoutError:
            return _no_answer(patience_s)
        return self._read(data, self._per_message)

    async def close(self) -> None:
        """Nothing is left open."""


class StreamLane:
    """Messages of a bidirectional stream, whose replies come in order; opened again when it breaks."""

    def __init__(self, channel: grpc.aio.Channel, method: Method, per_message: int) -> None:
        self._method: Any = channel.stream_stream(method.path)
        self._read, self._per_message = method.read, per_message
        self._stream: _Stream | None = None
        self._writing = asyncio.Lock()

    async def exchange(self, message: bytes, deadline_s: float | None, patience_s: float) -> Reply:
        """Send one message and wait for its reply; see `UnaryLane.exchange`.

        The deadline is the message's own; its refusal or expiry comes as its reply.
        """
        timeout_ms = 0 if deadline_s is None else max(1, round(deadline_s * 1000))
        try:
            async with asyncio.timeout(patience_s):
                async with self._writing:  # gRPC takes one write at a time
                    if self._stream is None or self._stream.ended:
                        self._stream = _Stream(self._method(), self._read, self._per_message)
                    reply = await self._stream.write(message, timeout_ms)
                return await reply
        except TimeoutError:
            return _no_answer(patience_s)

    async def close(self) -> None:
        """End the stream."""
        if self._stream is not None:
            await self._stream.close()


class _Stream:
    """One RPC: what was written and not answered yet, in order."""

    def __init__(self, call: Any, read: Callable[[bytes, int], Reply], per_message: int) -> None:
        self._call, self._read, self._per_message = call, read, per_message
        self._written = 0
        self._unanswered: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._reader = asyncio.create_task(self._read_all())

    @property
    def ended(self) -> bool:
        """Whether no more can be written."""
        return self._reader.done()

    async def write(self, message: bytes, timeout_ms: int) -> "asyncio.Future[Reply]":
        """Send a message; the future is its reply."""
        self._written += 1
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._unanswered.append((self._written, reply))
        # Where the stream has ended, the reader says so to all that is unanswered.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(message + stream_fields(self._written, timeout_ms))
        if self._reader.done():
            self._end(_ENDED)
        return reply

    async def _read_all(self) -> None:
        ending = _ENDED
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                reply = self._read(data, self._per_message)
                for answer in (reply, *reply.following):
                    self._answer(answer)
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                ending = Reply(code.name, await self._call.details() or "")
        except grpc.aio.AioRpcError as error:
            ending = _ended(error)
        finally:
            self._end(ending)

    def _answer(self, reply: Reply) -> None:
        if not self._unanswered:
            return
        number, future = self._unanswered.popleft()
        if future.done():  # its caller lost patience
            return
        if reply.id != number:
            reply = Reply(MALFORMED_REPLY, f"the reply has id {reply.id}; expected {number}")
        future.set_result(reply)

    def _end(self, ending: Reply) -> None:
        while self._unanswered:
            _, future = self._unanswered.popleft()
            if not future.done():
                future.set_result(ending)

    async def close(self) -> None:
        if not self.ended:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
            await asyncio.wait([self._reader], timeout=_CLOSE_S)
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


_ENDED = Reply("UNAVAILABLE", "the server ended the stream")


def _ended(error: grpc.aio.AioRpcError) -> Reply:
    code, detail = error.code().name, error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == _PUSH_BACK:
            with contextlib.suppress(ValueError):
                return Reply(code, detail, float(value) / 1000)
    return Reply(code, detail)


def _no_answer(patience_s: float) -> Reply:
    return Reply("DEADLINE_EXCEEDED", f"no answer within {patience_s:g} s, and no longer waited for")


class Wire:
    """Connections to one server; an async context manager.

    Attributes:
        lanes: what calls go over, in turn.
    """

    def __init__(
        self, address: str, method: Method, per_message: int, *, connections: int, lanes: int = 0
    ) -> None:
        """Prepare.

        Args:
            address: host:port.
            method: of all calls.
            per_message: how many results each reply should have.
            connections: how many.
            lanes: streams, spread over the connections; 0: one each. Unary calls have one lane for
                each connection.
        """
        self._channels = [open_channel(address) for _ in range(connections)]
        kind = StreamLane if method.streams else UnaryLane
        count = lanes if method.streams and lanes else connections
        self.lanes: list[StreamLane | UnaryLane] = [
            kind(self._channels[i % connections], method, per_message) for i in range(count)
        ]

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(lane.close() for lane in self.lanes))
        await asyncio.gather(*(channel.close() for channel in self._channels))
