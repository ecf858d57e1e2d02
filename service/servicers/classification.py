"""fovea.v1.ClassificationService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc, status_pb2

from service.config import Config
from service.errors import RequestError
from service.pipeline import Classification, Pipeline
from service.repository import ModelRepository
from service.servicers.messages import deadline_of, image_sources, name_model, status
from service.servicers.streams import OrderedStream

_DEFAULT_TOP_K = 5


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Names what is on images."""

    def __init__(
        self, repository: ModelRepository, pipeline: Pipeline, config: Config, draining: asyncio.Event
    ) -> None:
        self._repository, self._pipeline = repository, pipeline
        self._config, self._draining = config, draining

    async def Classify(
        self, request: pb.ClassifyRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.ClassifyResponse:
        """One request, one reply."""
        return await self._classify(request, deadline_of(context, self._config), stream=False)

    def ClassifyStream(
        self,
        request_iterator: AsyncIterator[pb.ClassifyStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Many requests, their replies in order."""
        stream = OrderedStream(self._answer, _failed, self._config, self._draining)
        return stream.run(request_iterator)

    async def _answer(self, message: pb.ClassifyStreamRequest, deadline: float) -> pb.ClassifyStreamResponse:
        response = await self._classify(message.request, deadline, stream=True)
        return pb.ClassifyStreamResponse(id=message.id, response=response)

    async def _classify(
        self, request: pb.ClassifyRequest, deadline: float, *, stream: bool
    ) -> pb.ClassifyResponse:
        model = self._repository.get(request.model, request.version)
        maker = name_model(model)
        images = image_sources(request.images, self._config)
        k = request.top_k or _DEFAULT_TOP_K
        results = await self._pipeline.classify(model, images, k, deadline, stream=stream)
        return pb.ClassifyResponse(
            model=maker,
            results=[_result(result, include_logits=request.include_logits) for result in results],
        )


def _failed(message: pb.ClassifyStreamRequest, why: status_pb2.Status) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=message.id, error=why)


def _result(result: Classification | RequestError, *, include_logits: bool) -> pb.ClassifyResult:
    if isinstance(result, RequestError):
        return pb.ClassifyResult(error=status(result))
    classes = [
        pb.ClassScore(label=score.label, index=score.index, probability=score.probability)
        for score in result.classes
    ]
    logits = result.logits.tolist() if include_logits else None
    return pb.ClassifyResult(classification=pb.Classification(classes=classes, logits=logits))
