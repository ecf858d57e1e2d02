"""One call: what its handler reads and writes, and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
import grpc.aio
import structlog

from service.http2 import headers, messages
from service.http2.frames import Code, ConnectionFault
from service.http2.headers import CallHeaders, Metadata
from service.http2.messages import MessageFault, MessageReader, TooLarge, Unsupported

log = structlog.get_logger()
# What a caller may send of a message, or of those after it, before anybody reads it.
LOOKAHEAD_BYTES = 256 * 1024
# Of a crash, in characters; gRPC's clients take 16 KiB of headers at most.
_LONGEST_DETAILS = 1000


class Wire(Protocol):
    """What a call knows of its connection."""

    def begin_and_end(self, call: "Call", message: bytes, ending: bytes) -> bool:
        """Send a whole answer, if all of it may go now; else nothing."""

    async def send(self, call: "Call", message: bytes) -> None:
        """Send a message as fast as the caller takes it, and before it the answer's beginning."""

    def end(self, call: "Call", ending: bytes) -> None:
        """Send the answer's end."""

    def allow(self, call: "Call", more_bytes: int) -> None:
        """Let the caller send so many more bytes."""


class _Aborted(Exception):
    """The handler has said how the call ends."""


class Call:
    """A call from its headers to its end; to its handler, what `grpc.aio.ServicerContext` is.

    The handler runs in a task of its own, which is cancelled when the caller leaves, the deadline passes
    or the connection is lost.

    Attributes:
        stream_id: on its connection.
        send_window: bytes that its caller takes, of DATA.
        begun: the answer's beginning has been sent.
        ended: the answer's end has been sent, or nobody is there to get it.
        half_closed: the caller sends nothing more.
        room: whoever waits until more may be sent.
    """

    __slots__ = (
        "_aborted", "_allowed", "_deadline", "_handler", "_headers", "_largest_bytes", "_messages",
        "_news", "_task", "_timer", "_trailing", "_why", "_wire", "begun", "ended", "half_closed",
        "room", "send_window", "stream_id",
    )  # fmt: skip

    def __init__(
        self,
        wire: Wire,
        stream_id: int,
        call_headers: CallHeaders,
        handler: "grpc.RpcMethodHandler[Any, Any]",
        send_window: int,
        largest_bytes: int,
    ) -> None:
        """Make it; `start` runs its handler.

        Args:
            wire: its connection.
            stream_id: on it.
            call_headers: what is asked for.
            handler: of its method.
            send_window: bytes of DATA that its caller takes at first.
            largest_bytes: of one message.
        """
        self._wire, self.stream_id, self._headers, self._handler = wire, stream_id, call_headers, handler
        self.send_window = send_window
        timeout_s = call_headers.timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._largest_bytes = largest_bytes
        self._messages = MessageReader(largest_bytes, call_headers.encoding)
        self._allowed = LOOKAHEAD_BYTES
        self._trailing: Metadata = ()
        self._news: asyncio.Future[None] | None = None
        self.room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._aborted: tuple[grpc.StatusCode, str] | None = None
        self._why: tuple[grpc.StatusCode, str] | None = None
        self.begun = self.ended = self.half_closed = False

    # What the connection tells it.

    def start(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        """Run the handler, on the running loop; its task may be over after the call's end."""
        if self._deadline is not None:
            self._timer = loop.call_at(self._deadline, self._expire)
        self._task = task = loop.create_task(self._run())
        task.add_done_callback(self._done)
        return task

    def receive(self, data: memoryview, unread_bytes: int = 0) -> None:
        """DATA came.

        Args:
            data: its content.
            unread_bytes: of padding.

        Raises:
            ConnectionFault: more than was allowed.
        """
        self._allowed -= len(data) + unread_bytes
        if self._allowed < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"too much DATA on stream {self.stream_id}")
        if self.ended:
            return
        try:
            self._messages.feed(data)
        except MessageFault as fault:
            self._refuse(fault)
            return
        if self._news is not None:
            if self._messages:
                self._wake()
            else:
                self._allow_more(reading=True)

    def finish_request(self) -> None:
        """The caller has sent all."""
        self.half_closed = True
        if self.ended:
            return
        if self._messages.within:
            self._refuse(MessageFault("the last message is cut short"))
        else:
            self._wake()

    def leave(self, status: grpc.StatusCode = grpc.StatusCode.CANCELLED, message: str = "") -> None:
        """Cancel the handler: the caller has left, or is told so.

        Args:
            status: for the caller, if there still is one.
            message: likewise.
        """
        if not self.ended:
            self._why = status, message
        if self._task is not None:
            # Not before its first step: what never began is counted and logged nowhere.
            self._task.get_loop().call_soon(self._task.cancel)
        # Tasks that the handler began may wait too; they find that the call has ended.
        self._wake()
        self.may_send()

    def may_send(self) -> None:
        """Room came."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    # What its handler asks and says; as of grpc.aio.ServicerContext.

    def invocation_metadata(self) -> Metadata:
        """What the caller sent along, as (name, value)."""
        return self._headers.metadata

    def time_remaining(self) -> float | None:
        """Seconds to the caller's deadline, at least 0; None where there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """What goes to the caller with the status."""
        self._trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with a status; what this raises has to reach the handler's caller.

        Raises:
            Exception: always.
        """
        if trailing_metadata:
            self._trailing = trailing_metadata
        self._aborted = code, details
        raise _Aborted

    @property
    def has_message(self) -> bool:
        """Whether `read` would give one without waiting."""
        return bool(self._messages)

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`; while nobody reads, what is unread stays with the caller.

        Raises:
            asyncio.CancelledError: the caller has left, and didn't send all; in whatever task this is.
        """
        while not self._messages:
            if self.ended or self._why is not None:
                raise asyncio.CancelledError
            if self.half_closed:
                return grpc.aio.EOF
            self._allow_more(reading=True)
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        try:
            message = self._messages.take()
        except MessageFault as fault:
            self._refuse(fault)
            raise asyncio.CancelledError from None
        self._allow_more(reading=False)
        deserialize = self._handler.request_deserializer
        return message if deserialize is None else deserialize(message)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Its messages."""
        return self

    async def __anext__(self) -> Any:
        """The next one."""
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def write(self, message: Any) -> None:
        """Send a message; waits while the caller doesn't take more."""
        await self._wire.send(self, messages.prefixed(self._serialized(message)))

    # How it goes.

    async def _run(self) -> None:
        status, details, response = grpc.StatusCode.OK, "", None
        try:
            response = await self._handle()
        except _Aborted:
            pass
        except Exception as error:  # the call's end, and no other's
            if not self.ended:
                log.error("handler_crashed", method=self._headers.path, exc_info=error)
            status = grpc.StatusCode.UNKNOWN
            details = f"Unexpected {type(error)}: {error}"[:_LONGEST_DETAILS]
        if self.ended:
            return
        # What the caller was to be told comes first, whatever the handler made of its cancellation.
        told = self._why or self._aborted
        if told is not None:
            response = None
            status, details = told
        ending = self._ending(status, details)
        if response is not None:
            if self._wire.begin_and_end(self, response, ending):
                return
            await self._wire.send(self, response)
        self._wire.end(self, ending)

    def _done(self, _: "asyncio.Task[None]") -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task = None
        if not self.ended:  # the handler was cancelled, maybe before it began
            self._end(*(self._why or (grpc.StatusCode.CANCELLED, "the call was cancelled")))

    def _end(self, status: grpc.StatusCode, details: str) -> None:
        self._wire.end(self, self._ending(status, details))

    def _ending(self, status: grpc.StatusCode, details: str) -> bytes:
        try:
            return headers.ending(status.value[0], details, self._trailing)
        except (AttributeError, TypeError, ValueError) as error:  # the caller needs an answer all the same
            log.error("trailing_metadata_dropped", method=self._headers.path, exc_info=error)
            return headers.ending(status.value[0], details)

    async def _handle(self) -> bytes | None:
        """The one answer, as it goes into DATA; None of a method that writes its answers itself."""
        handler: Any = self._handler
        request: Any = self
        if not handler.request_streaming:
            request = await self.read()
            if request is grpc.aio.EOF:
                await self.abort(grpc.StatusCode.INTERNAL, "the call has no message; expected one")
        if handler.response_streaming:
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            answers = behavior(request, self)
            if not hasattr(answers, "__aiter__"):
                await answers
                return None
            try:
                async for answer in answers:
                    await self.write(answer)
            finally:  # now, and not when the garbage collector comes by
                if close := getattr(answers, "aclose", None):
                    await close()
            return None
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        return messages.prefixed(self._serialized(await behavior(request, self)))

    def _serialized(self, message: Any) -> bytes:
        serialize = self._handler.response_serializer
        content: bytes = message if serialize is None else serialize(message)
        if len(content) > self._largest_bytes:
            what = f"Sent message larger than max ({len(content)} vs. {self._largest_bytes})"
            self._aborted = grpc.StatusCode.RESOURCE_EXHAUSTED, what
            raise _Aborted
        return content

    def _allow_more(self, *, reading: bool) -> None:
        """So much that a message that is waited for can come whole; else the lookahead at most."""
        if self.half_closed or self.ended:
            return
        more = LOOKAHEAD_BYTES - self._messages.held_bytes - self._allowed
        if reading:
            more = max(more, self._messages.missing_bytes - self._allowed)
        if more >= LOOKAHEAD_BYTES // 2 or (reading and self._allowed < self._messages.missing_bytes):
            self._allowed += more
            self._wire.allow(self, more)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _expire(self) -> None:
        if not self.ended:
            self.leave(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _refuse(self, fault: MessageFault) -> None:
        if isinstance(fault, TooLarge):
            status = grpc.StatusCode.RESOURCE_EXHAUSTED
        elif isinstance(fault, Unsupported):
            status = grpc.StatusCode.UNIMPLEMENTED
        else:
            status = grpc.StatusCode.INTERNAL
        if self._task is not None and not self.ended:
            self._end(status, str(fault))
        self.leave()
