"""fovea.v1.EmbeddingService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc.aio
from fovea.v1 import embedding_pb2 as pb
from fovea.v1 import embedding_pb2_grpc, status_pb2

from service.config import Config
from service.errors import RequestError
from service.interceptors import deadline_in
from service.model import Model, Prediction
from service.pipeline import InferenceRequest, Pipeline
from service.repository import ModelRepository
from service.retrieval.replies import check_reply_size
from service.servicers.messages import (
    image_sources,
    name_model,
    priority_of,
    set_maker,
    status,
)
from service.servicers.streams import Answer, OrderedStream
from service.servicers.vectors import vector_of


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Turns images into vectors."""

    def __init__(
        self, repository: ModelRepository, pipeline: Pipeline, config: Config, draining: asyncio.Event
    ) -> None:
        self._repository, self._pipeline = repository, pipeline
        self._config, self._draining = config, draining

    async def Embed(
        self, request: pb.EmbedRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.EmbedResponse:
        """One request, one reply."""
        wanted = self._understand(request, context.time_remaining())
        response = pb.EmbedResponse()
        self._fill(response, wanted.model, await self._pipeline.infer(wanted))
        return response

    async def EmbedStream(  # type: ignore[override] # a coroutine that reads and writes by itself
        self,
        request_iterator: AsyncIterator[pb.EmbedStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Many requests, their replies in order."""
        stream = OrderedStream(
            self._pipeline, self._understand_message, _failed, self._config, self._draining
        )
        await stream.run(context)

    def _understand(self, request: pb.EmbedRequest, timeout_s: float | None) -> InferenceRequest:
        model = self._repository.get(request.model, request.version)
        name_model(model)
        images = image_sources(request.images, self._config)
        deadline = deadline_in(timeout_s, model.default_timeout_ms / 1000)
        return InferenceRequest(model, images, deadline, priority=priority_of(request))

    def _understand_message(
        self, message: pb.EmbedStreamRequest
    ) -> tuple[InferenceRequest, Answer[pb.EmbedStreamResponse]]:
        wanted = self._understand(message.request, message.timeout_ms / 1000 or None)
        return wanted, partial(self._answer, message.id)

    def _answer(
        self, message_id: int, model: Model, predictions: Sequence[Prediction | RequestError]
    ) -> pb.EmbedStreamResponse:
        answer = pb.EmbedStreamResponse(id=message_id)
        self._fill(answer.response, model, predictions)
        return answer

    def _fill(
        self, response: pb.EmbedResponse, model: Model, predictions: Sequence[Prediction | RequestError]
    ) -> None:
        set_maker(response.model, model)
        response.fingerprint = model.fingerprint
        for prediction in predictions:
            result = response.results.add()
            if isinstance(prediction, RequestError):
                result.error.CopyFrom(status(prediction))
            else:
                result.embedding.CopyFrom(vector_of(prediction.embedding))
        check_reply_size(response.ByteSize(), self._config.max_message_bytes, "send fewer images at a time")


def _failed(message_id: int, why: status_pb2.Status) -> pb.EmbedStreamResponse:
    return pb.EmbedStreamResponse(id=message_id, error=why)
