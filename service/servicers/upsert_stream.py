"""The stream that writes items: several messages are embedded at a time, and written in their order."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc.aio
from fovea.v1 import retrieval_pb2 as pb

from service.config import Config
from service.gallery.items import Items, NewItem, Written
from service.gallery.writes import Replaced
from service.interceptors import deadline_in
from service.servicers.messages import check_count
from service.servicers.ordered import OrderedMessages, Pending
from service.servicers.retrieval_messages import new_item, upsert_response
from service.servicers.streams import why


class _Message(Pending):
    """A message that was read; its items are let go of once it is written, its answer when it is sent."""

    __slots__ = ("answer",)

    def __init__(
        self, request: pb.UpsertStreamRequest, answer: asyncio.Task[pb.UpsertStreamResponse]
    ) -> None:
        super().__init__(max(1, len(request.request.items)), request.ByteSize())
        self.answer = answer


class _Turn:
    """How far a message has come; both are set at its end too, whatever it was.

    Attributes:
        taken: its items have their place among those to be written.
        over: they are written, or never will be.
    """

    def __init__(self) -> None:
        self.taken, self.over = asyncio.Event(), asyncio.Event()


class UpsertStream(OrderedMessages[pb.UpsertStreamRequest, _Message]):
    """Writes a stream's messages in their order, several of them being embedded at a time."""

    def __init__(self, items: Items, config: Config, draining: asyncio.Event) -> None:
        """Prepare for one stream.

        Args:
            items: writes.
            config: the window, and how long a message may take.
            draining: once it is set nothing more is read; what was read is answered.
        """
        super().__init__(config, draining)
        self._items, self._config = items, config
        self._before: _Turn | None = None

    async def _begin(self, request: pb.UpsertStreamRequest) -> _Message:
        before, self._before = self._before, (turn := _Turn())
        return _Message(request, asyncio.create_task(self._answer(request, before, turn)))

    async def _write(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await context.write(await self._pending[0].answer)
        self._forget_oldest()

    def _abandon(self) -> Sequence[asyncio.Task[Any]]:
        answers = [message.answer for message in self._pending]
        for answer in answers:
            answer.cancel()
        return answers

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
            done = await self._upsert(collection, items, fingerprint, deadline, before, turn)
            return pb.UpsertStreamResponse(id=number, response=upsert_response(ids, done))
        except Exception as error:  # noqa: BLE001 - it is this message's, and the stream's others go on
            return pb.UpsertStreamResponse(id=number, error=why(error))
        finally:
            turn.taken.set()
            turn.over.set()

    async def _upsert(
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
