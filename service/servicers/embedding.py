"""fovea.v1.EmbeddingService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
from fovea.v1 import embedding_pb2 as pb
from fovea.v1 import embedding_pb2_grpc, status_pb2

from service.config import Config
from service.errors import RequestError
from service.model import Model, Prediction
from service.pipeline import Pipeline, Work
from service.repository import ModelRepository
from service.servicers.messages import (
    deadline_in,
    deadline_of,
    image_sources,
    name_model,
    priority_of,
    set_maker,
    status,
)
from service.servicers.streams import OrderedStream


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
        model = self._repository.get(request.model, request.version)
        name_model(model)
        predictions = await self._pipeline.infer(
            model,
            image_sources(request.images, self._config),
            deadline_of(context, model.default_timeout_ms),
            priority=priority_of(request),
        )
        response = pb.EmbedResponse()
        _fill(response, model, predictions)
        return response

    async def EmbedStream(  # type: ignore[override] # a coroutine that reads and writes by itself
        self,
        request_iterator: AsyncIterator[pb.EmbedStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Many requests, their replies in order."""
        stream = OrderedStream(
            self._pipeline, self._begin, self._answer, _failed, self._config, self._draining
        )
        await stream.run(context)

    async def _begin(self, message: pb.EmbedStreamRequest) -> Work:
        request = message.request
        model = self._repository.get(request.model, request.version)
        name_model(model)
        return await self._pipeline.begin_message(
            model,
            image_sources(request.images, self._config),
            deadline_in(message.timeout_ms or model.default_timeout_ms),
            priority=priority_of(request),
        )

    async def _answer(self, message: pb.EmbedStreamRequest, work: Work) -> pb.EmbedStreamResponse:
        answer = pb.EmbedStreamResponse(id=message.id)
        _fill(answer.response, work.model, await self._pipeline.finish(work))
        return answer


def _failed(message: pb.EmbedStreamRequest, why: status_pb2.Status) -> pb.EmbedStreamResponse:
    return pb.EmbedStreamResponse(id=message.id, error=why)


def _fill(response: pb.EmbedResponse, model: Model, predictions: Sequence[Prediction | RequestError]) -> None:
    set_maker(response.model, model)
    response.fingerprint = model.fingerprint
    for prediction in predictions:
        result = response.results.add()
        if isinstance(prediction, RequestError):
            result.error.CopyFrom(status(prediction))
        else:
            result.embedding.values.extend(prediction.embedding.tolist())
