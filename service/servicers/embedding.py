"""fovea.v1.EmbeddingService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
from fovea.v1 import embedding_pb2 as pb
from fovea.v1 import embedding_pb2_grpc, model_pb2, status_pb2
from numpy.typing import NDArray

from service.config import Config
from service.errors import RequestError
from service.pipeline import Pipeline
from service.repository import ModelRepository
from service.servicers.messages import deadline_of, image_sources, name_model, status
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
        return await self._embed(request, deadline_of(context, self._config), stream=False)

    def EmbedStream(
        self,
        request_iterator: AsyncIterator[pb.EmbedStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Many requests, their replies in order."""
        stream = OrderedStream(self._answer, _failed, self._config, self._draining)
        return stream.run(request_iterator)

    async def _answer(self, message: pb.EmbedStreamRequest, deadline: float) -> pb.EmbedStreamResponse:
        response = await self._embed(message.request, deadline, stream=True)
        return pb.EmbedStreamResponse(id=message.id, response=response)

    async def _embed(self, request: pb.EmbedRequest, deadline: float, *, stream: bool) -> pb.EmbedResponse:
        model = self._repository.get(request.model, request.version)
        maker = name_model(model)
        images = image_sources(request.images, self._config)
        results = await self._pipeline.embed(model, images, deadline, stream=stream)
        return pb.EmbedResponse(
            model=maker, results=[_result(result) for result in results], fingerprint=model.fingerprint
        )


def _failed(message: pb.EmbedStreamRequest, why: status_pb2.Status) -> pb.EmbedStreamResponse:
    return pb.EmbedStreamResponse(id=message.id, error=why)


def _result(result: NDArray[np.float32] | RequestError) -> pb.EmbedResult:
    if isinstance(result, RequestError):
        return pb.EmbedResult(error=status(result))
    return pb.EmbedResult(embedding=model_pb2.Vector(values=result.tolist()))
