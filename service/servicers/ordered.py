"""The loop of a bidirectional stream: a bounded number of messages in work, answered in their order."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import grpc.aio

from service.config import Config
from service.errors import Unavailable
from service.interceptors import checked


class Pending:
    """A message that was read and isn't answered yet: what it takes of the window.

    Attributes:
        parts: its images or items; 1 at least.
        size_bytes: of these, as they are held.
    """

    __slots__ = ("parts", "size_bytes")

    def __init__(self, parts: int, size_bytes: int) -> None:
        self.parts, self.size_bytes = parts, size_bytes


Request = TypeVar("Request")
Message = TypeVar("Message", bound=Pending)


class OrderedMessages(ABC, Generic[Request, Message]):
    """Answers a stream's messages, several at a time, in their order.

    While the window is full nothing is read, so HTTP/2's flow control holds the caller back; and so it
    does while the caller doesn't read the answers. A message that fails is its own answer.
    """

    def __init__(self, config: Config, draining: asyncio.Event) -> None:
        """Prepare for one stream.

        Args:
            config: the window.
            draining: once it is set nothing more is read; what was read is answered.
        """
        self._draining = draining
        self._window_parts, self._window_bytes = config.stream_window_images, config.max_message_bytes
        self._pending: deque[Message] = deque()
        self._parts = self._bytes = 0
        self._beginning = False  # a message was read and isn't pending yet
        self._news, self._room = asyncio.Event(), asyncio.Event()

    @abstractmethod
    async def _begin(self, request: Request) -> Message:
        """Begin the work of a message; its failure is the message's, and the stream's others go on."""

    @abstractmethod
    async def _write(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Wait for the oldest message's answer, write it and forget the message.

        If the caller leaves during the wait, it is still pending.
        """

    @abstractmethod
    def _abandon(self) -> Sequence[asyncio.Task[Any]]:
        """Give up what is pending, without a wait; what must have ended before the stream has."""

    async def run(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Read and answer until the caller ends the stream.

        Raises:
            Unavailable: the server drains; what was read before has been answered.
        """
        reader = asyncio.create_task(self._read(context))
        drain = asyncio.create_task(self._draining.wait())
        for task in (reader, drain):
            task.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                while self._pending:
                    await self._write(context)
                if reader.done():
                    break
                if drain.done() and not self._beginning:
                    raise Unavailable("the server is draining; send what is left to another one")
                self._news.clear()
                await self._news.wait()
            reader.result()  # raises what ended the reading, as a malformed message
        finally:
            # Once it is cancelled the reader adds nothing. Before the wait, which may be cancelled itself.
            reader.cancel()
            drain.cancel()
            await asyncio.gather(reader, drain, *self._abandon(), return_exceptions=True)

    async def _read(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        while True:
            while self._parts >= self._window_parts or self._bytes >= self._window_bytes:
                self._room.clear()
                await self._room.wait()
            if self._draining.is_set():
                await asyncio.Future()  # `run` ends the stream
            request = await context.read()
            if request is grpc.aio.EOF:
                return
            self._beginning = True
            message = await self._begin(checked(request))
            request = None  # a stream may be idle for long now
            self._parts += message.parts
            self._bytes += message.size_bytes
            self._pending.append(message)
            self._beginning = False
            self._news.set()

    def _forget_oldest(self) -> None:
        message = self._pending.popleft()
        self._parts -= message.parts
        self._bytes -= message.size_bytes
        self._room.set()
