"""The loop of the stream that writes items: a bounded number of messages in work, answered in order."""

import asyncio
from collections import deque
from typing import Any

import grpc.aio
from fovea.v1 import retrieval_pb2 as pb

from service.config import Config
from service.errors import Unavailable
from service.gallery.items import Items, NewItem, Written
from service.gallery.writes import Replaced
from service.interceptors import checked, deadline_in
from service.servicers.messages import check_count
from service.servicers.retrieval_messages import new_item, upsert_response
from service.servicers.streams import why


class _Message:
    """A message that was read; its items are let go of once it is written, its answer when it is sent."""

    def __init__(self, request: pb.UpsertStreamRequest) -> None:
        self.id = request.id
        self.items = max(1, len(request.request.items))
        self.size_bytes = request.ByteSize()
        self.answer: asyncio.Task[pb.UpsertStreamResponse]


class _Turn:
    """How far a message has come; both are set at its end too, whatever it was.

    Attributes:
        taken: its items have their place among those to be written.
        over: they are written, or never will be.
    """

    def __init__(self) -> None:
        self.taken, self.over = asyncio.Event(), asyncio.Event()


class UpsertStream:
    """Writes a stream's messages in their order, several of them being embedded at a time.

    While the window is full nothing is read, so HTTP/2's flow control holds the caller back; and so it
    does while the caller doesn't read the answers. A message that fails is its own answer.
    """

    def __init__(self, items: Items, config: Config, draining: asyncio.Event) -> None:
        """Prepare for one stream.

        Args:
            items: writes.
            config: the window, and how long a message may take.
            draining: once it is set nothing more is read; what was read is answered.
        """
        self._items, self._config, self._draining = items, config, draining
        self._pending: deque[_Message] = deque()
        self._in_items = self._in_bytes = 0
        self._beginning = False  # a message was read and isn't pending yet
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def run(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Read, write and answer until the caller ends the stream.

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
                    await context.write(await self._pending[0].answer)
                    self._forget_oldest()
                if reader.done():
                    break
                if drain.done() and not self._beginning:
                    raise Unavailable("the server is draining; send what is left to another one")
                self._news.clear()
                await self._news.wait()
            reader.result()  # raises what ended the reading, as a malformed message
        finally:
            reader.cancel()
            drain.cancel()
            answers = [message.answer for message in self._pending]
            for answer in answers:
                answer.cancel()
            await asyncio.gather(reader, drain, *answers, return_exceptions=True)

    async def _read(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        window_items, window_bytes = self._config.stream_window_images, self._config.max_message_bytes
        before: _Turn | None = None
        while True:
            while self._in_items >= window_items or self._in_bytes >= window_bytes:
                self._room.clear()
                await self._room.wait()
            if self._draining.is_set():
                await asyncio.Future()  # `run` ends the stream
            request = await context.read()
            if request is grpc.aio.EOF:
                return
            self._beginning = True
            message, turn = _Message(checked(request)), _Turn()
            message.answer = asyncio.create_task(self._answer(request, before, turn))
            before = turn
            request = None  # a stream may be idle for long now
            self._in_items += message.items
            self._in_bytes += message.size_bytes
            self._pending.append(message)
            self._beginning = False
            self._news.set()

    async def _answer(
        self, message: pb.UpsertStreamRequest, before: _Turn | None, turn: _Turn
    ) -> pb.UpsertStreamResponse:
        """Embed a message's images, then write its items in its turn.

        Args:
            message: what to write.
            before: the turn of the message before it.
            turn: its own.
        """
        number, request = message.id, message.request
        timeout_s = message.timeout_ms / 1000 or None
        deadline = deadline_in(timeout_s, self._config.default_timeout_ms / 1000)
        try:
            check_count("items", request.items, self._config)
            ids = [item.id for item in request.items]
            items = [new_item(item) for item in request.items]
            collection, fingerprint = request.collection, request.fingerprint
            del message, request  # its images take room a second time
            done = await self._write(collection, items, fingerprint, deadline, before, turn)
            return pb.UpsertStreamResponse(id=number, response=upsert_response(ids, done))
        except Exception as error:  # noqa: BLE001 - it is this message's, and the stream's others go on
            return pb.UpsertStreamResponse(id=number, error=why(error))
        finally:
            turn.taken.set()
            turn.over.set()

    async def _write(
        self,
        collection: str,
        items: list[NewItem],
        fingerprint: str,
        deadline: float,
        before: _Turn | None,
        turn: _Turn,
    ) -> Written:
        prepared = await self._items.prepare(collection, items, fingerprint, deadline, patient=True)
        if before is not None:
            await before.taken.wait()  # bounded by the deadline of each message before
        try:
            return await self._items.commit(prepared, deadline, patient=True, on_turn=turn.taken.set)
        except Replaced:
            if before is not None:  # which may have to be written again as well
                await before.over.wait()
            return await self._items.upsert(collection, items, fingerprint, deadline, patient=True)

    def _forget_oldest(self) -> None:
        message = self._pending.popleft()
        self._in_items -= message.items
        self._in_bytes -= message.size_bytes
        self._room.set()
