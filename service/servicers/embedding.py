"""fovea.v1.EmbeddingService: proto ↔ plain values."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
from fovea.v1 import embedding_pb2 as pb
from fovea.v1 import embedding_pb2_grpc, model_pb2
from numpy.typing import NDArray

from service.config import Config
from service.errors import RequestError
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.servicers.messages import count_images, deadline_of, image_source, name_model, status
from service.servicers.streams import answer_in_order, message_deadline


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Turns images into vectors."""

    def __init__(self, pipeline: Pipeline, config: Config, metrics: Metrics) -> None:
        self._pipeline, self._config, self._metrics = pipeline, config, metrics

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
        return answer_in_order(request_iterator, self._answer, self._config.stream_window_images)

    async def _answer(self, message: pb.EmbedStreamRequest) -> pb.EmbedStreamResponse:
        try:
            deadline = message_deadline(message.timeout_ms, self._config)
            response = await self._embed(message.request, deadline, stream=True)
        except RequestError as error:
            return pb.EmbedStreamResponse(id=message.id, error=status(error))
        return pb.EmbedStreamResponse(id=message.id, response=response)

    async def _embed(self, request: pb.EmbedRequest, deadline: float, *, stream: bool) -> pb.EmbedResponse:
        reply = await self._pipeline.embed(
            [image_source(image) for image in request.images],
            request.model,
            request.version,
            deadline,
            stream=stream,
        )
        count_images(self._metrics, reply.model, reply.results)
        return pb.EmbedResponse(
            model=name_model(reply.model),
            results=[_result(result) for result in reply.results],
            fingerprint=reply.model.fingerprint,
        )


def _result(result: NDArray[np.float32] | RequestError) -> pb.EmbedResult:
    if isinstance(result, RequestError):
        return pb.EmbedResult(error=status(result))
    return pb.EmbedResult(embedding=model_pb2.Vector(values=result.tolist()))
