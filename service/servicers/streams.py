"""The loop of a bidirectional stream: a bounded number of messages in work, answers in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import structlog
from fovea.v1 import classification_pb2, embedding_pb2, status_pb2

from service.config import Config
from service.errors import RequestError, Unavailable
from service.interceptors import NOT_LOGGED, clip, crash_message, current_call, status_of
from service.servicers.messages import status

Request = TypeVar(
    "Request", bound=classification_pb2.ClassifyStreamRequest | embedding_pb2.EmbedStreamRequest
)
Response = TypeVar("Response")
log = structlog.get_logger()


class OrderedStream(Generic[Request, Response]):
    """Answers a stream's messages, several at a time, in their order.

    While the window is full nothing is read, so HTTP/2's flow control holds the caller back; and so it
    does while the caller doesn't read the answers. A message that fails is its own answer.
    """

    def __init__(
        self,
        answer: Callable[[Request, float], Awaitable[Response]],
        fail: Callable[[Request, status_pb2.Status], Response],
        config: Config,
        draining: asyncio.Event,
    ) -> None:
        """Prepare for one stream.

        Args:
            answer: a message and its deadline (loop time) → its answer.
            fail: a message and why it failed → its answer.
            config: window and default deadline.
            draining: once it is set nothing more is read; what was read is answered.
        """
        self._answer, self._fail, self._draining = answer, fail, draining
        self._window_images, self._window_bytes = config.stream_window_images, config.max_message_bytes
        self._default_timeout_ms = config.default_timeout_ms
        self._pending: deque[tuple[_Weight, asyncio.Task[Response]]] = deque()
        self._images = self._bytes = 0

    async def run(self, requests: AsyncIterator[Request]) -> AsyncIterator[Response]:
        """Every answer in turn.

        Raises:
            Unavailable: the server drains; what was read before has been answered.
        """
        iterator = aiter(requests)
        drain = asyncio.create_task(self._draining.wait())
        reading: asyncio.Task[Request] | None = None
        more = True
        try:
            while more or self._pending:
                if more and reading is None and self._has_room():
                    reading = asyncio.ensure_future(anext(iterator))
                oldest = self._pending[0][1] if self._pending else None
                waited_for: list[asyncio.Task[Any] | None] = [oldest, reading, drain if more else None]
                await asyncio.wait(filter(None, waited_for), return_when=asyncio.FIRST_COMPLETED)
                if reading is not None and reading.done():
                    more = self._begin(reading)
                    reading = None
                if drain.done():
                    more = False
                while self._pending and self._pending[0][1].done():
                    yield self._end()
            if drain.done():
                raise Unavailable("the server is draining; send what is left to another one")
        finally:
            left: list[asyncio.Task[Any]] = [drain, *(task for _, task in self._pending)]
            if reading is not None:
                left.append(reading)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _has_room(self) -> bool:
        return self._images < self._window_images and self._bytes < self._window_bytes

    def _begin(self, reading: "asyncio.Task[Request]") -> bool:
        """Set to work on a message; False where there was none any more."""
        try:
            request = reading.result()
        except StopAsyncIteration:
            return False
        weight = _Weight(max(1, len(request.request.images)), request.ByteSize())
        self._images += weight.images
        self._bytes += weight.size_bytes
        self._pending.append((weight, asyncio.create_task(self._answer_one(request))))
        return True

    def _end(self) -> Response:
        weight, task = self._pending.popleft()
        self._images -= weight.images
        self._bytes -= weight.size_bytes
        return task.result()

    async def _answer_one(self, request: Request) -> Response:
        timeout_ms = request.timeout_ms or self._default_timeout_ms
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        call = current_call.get()
        try:
            return await self._answer(request, deadline)
        except RequestError as error:
            if not isinstance(error, NOT_LOGGED):
                log.warning(
                    "message_failed", method=call.method, code=status_of(error).name, error=clip(str(error))
                )
            return self._fail(request, status(error))
        except Exception as error:  # it is this message's, and the stream's others go on
            log.error("message_crashed", method=call.method, exc_info=error)
            code = grpc.StatusCode.INTERNAL.value[0]
            return self._fail(request, status_pb2.Status(code=code, message=crash_message(call)))


@dataclass(frozen=True)
class _Weight:
    images: int
    size_bytes: int
