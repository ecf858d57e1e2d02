"""The streams of images: what is asked of the pipeline, and answers that go together."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
import structlog
from fovea.v1 import classification_pb2, embedding_pb2, status_pb2

from service.config import Config
from service.errors import RequestError
from service.interceptors import NOT_LOGGED, clip, crash_message, current_call, status_of
from service.model import Model, Prediction
from service.pipeline import InferenceRequest, Pipeline, Work
from service.servicers.messages import status
from service.servicers.ordered import OrderedMessages, Pending

Request = TypeVar(
    "Request", bound=classification_pb2.ClassifyStreamRequest | embedding_pb2.EmbedStreamRequest
)
Response = TypeVar(
    "Response", bound=classification_pb2.ClassifyStreamResponse | embedding_pb2.EmbedStreamResponse
)
# A message's model and predictions → its answer.
Answer = Callable[[Model, list[Prediction | RequestError]], Response]
log = structlog.get_logger()
# Of answers in one reply; far below the 4 MiB that a client takes by default.
_COMBINED_BYTES = 1024 * 1024


class _Message(Pending, Generic[Response]):
    """A message that was read: in work, or failed before it came to that.

    It doesn't hold the message itself, whose images take room: its caller may be slow to read the answers.
    """

    __slots__ = ("answer", "combine", "id", "outcome")

    def __init__(self, message_id: int, combine: bool) -> None:
        super().__init__(1, 0)
        self.id, self.combine = message_id, combine
        self.answer: Answer[Response] | None = None
        self.outcome: Work | status_pb2.Status | None = None

    @property
    def ready(self) -> bool:
        """Whether its answer can be had without waiting."""
        return not isinstance(self.outcome, Work) or self.outcome.group.done


class OrderedStream(OrderedMessages[Request, _Message[Response]], Generic[Request, Response]):
    """Answers a stream's messages with what the pipeline makes of their images."""

    def __init__(
        self,
        pipeline: Pipeline,
        understand: Callable[[Request], tuple[InferenceRequest, Answer[Response]]],
        fail: Callable[[int, status_pb2.Status], Response],
        config: Config,
        draining: asyncio.Event,
    ) -> None:
        """Prepare for one stream.

        Args:
            pipeline: does the work.
            understand: a message → what its caller wants, and what makes the answer of the predictions.
            fail: a message's id and why it failed → its answer.
            config: the window.
            draining: once it is set nothing more is read; what was read is answered.
        """
        super().__init__(config, draining)
        self._pipeline, self._understand, self._fail = pipeline, understand, fail

    async def _begin(self, request: Request) -> _Message[Response]:
        message: _Message[Response] = _Message(request.id, request.combine_replies)
        try:
            wanted, message.answer = self._understand(request)
            # Mostly there is room; and then nothing is awaited.
            work = self._pipeline.try_begin(wanted) or await self._pipeline.begin(wanted)
            message.outcome = work
            message.parts, message.size_bytes = work.load
        except Exception as error:  # noqa: BLE001 - it is this message's, and the stream's others go on
            message.outcome = why(error)
        return message

    def _abandon(self) -> Sequence[asyncio.Task[Any]]:
        for message in self._pending:
            if isinstance(message.outcome, Work):
                self._pipeline.abandon(message.outcome)
        return ()

    async def _write(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Answer the oldest message, and with it those after it that are ready and may come along.

        A write and the loop's turn for it cost more than all else that a small image's answer does.
        """
        combine = self._pending[0].combine
        reply = await self._end(self._pending[0])
        size_bytes = reply.ByteSize() if combine else 0
        while combine and self._pending and self._pending[0].ready and self._pending[0].combine:
            answer = await self._end(self._pending[0])
            answer_bytes = answer.ByteSize()
            if size_bytes + answer_bytes > _COMBINED_BYTES:
                await context.write(reply)
                reply, size_bytes = answer, 0
            else:
                reply.following.append(answer)  # type: ignore[arg-type] # both are the stream's own kind
            size_bytes += answer_bytes
        await context.write(reply)

    async def _end(self, message: _Message[Response]) -> Response:
        """The oldest message's answer; if its caller leaves meanwhile, it is still pending."""
        work = message.outcome
        if isinstance(work, Work):
            if not work.group.done:
                await work.group.until_done()
            self._forget_oldest()
            assert message.answer is not None  # noqa: S101 - `_begin` has set it
            try:
                return message.answer(work.model, self._pipeline.finish(work))
            except Exception as error:  # noqa: BLE001 - as above
                return self._fail(message.id, why(error))
        self._forget_oldest()
        assert work is not None  # noqa: S101 - as above
        return self._fail(message.id, work)


def why(error: Exception) -> status_pb2.Status:
    """What a stream's caller is told of a message's error; logged as a unary call's would be."""
    call = current_call.get()
    if isinstance(error, RequestError):
        error.__traceback__ = error.__context__ = None  # its group holds it, and its frames would hold that
        why = status(error)
        if not isinstance(error, NOT_LOGGED):
            log.warning(
                "message_failed", method=call.method, code=status_of(error).name, error=clip(str(error))
            )
        return why
    log.error("message_crashed", method=call.method, exc_info=error)
    return status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=crash_message(call))
