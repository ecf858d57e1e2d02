"""fovea.v1.ClassificationService: proto ↔ plain values."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc

from service.config import Config
from service.errors import RequestError
from service.metrics import Metrics
from service.pipeline import Classification, Pipeline
from service.servicers.messages import count_images, deadline_of, image_source, name_model, status
from service.servicers.streams import answer_in_order, message_deadline

_DEFAULT_TOP_K = 5


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Names what is on images."""

    def __init__(self, pipeline: Pipeline, config: Config, metrics: Metrics) -> None:
        self._pipeline, self._config, self._metrics = pipeline, config, metrics

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
        return answer_in_order(request_iterator, self._answer, self._config.stream_window_images)

    async def _answer(self, message: pb.ClassifyStreamRequest) -> pb.ClassifyStreamResponse:
        try:
            deadline = message_deadline(message.timeout_ms, self._config)
            response = await self._classify(message.request, deadline, stream=True)
        except RequestError as error:
            return pb.ClassifyStreamResponse(id=message.id, error=status(error))
        return pb.ClassifyStreamResponse(id=message.id, response=response)

    async def _classify(
        self, request: pb.ClassifyRequest, deadline: float, *, stream: bool
    ) -> pb.ClassifyResponse:
        reply = await self._pipeline.classify(
            [image_source(image) for image in request.images],
            request.model,
            request.version,
            request.top_k or _DEFAULT_TOP_K,
            deadline,
            stream=stream,
        )
        count_images(self._metrics, reply.model, reply.results)
        results = [_result(result, include_logits=request.include_logits) for result in reply.results]
        return pb.ClassifyResponse(model=name_model(reply.model), results=results)


def _result(result: Classification | RequestError, *, include_logits: bool) -> pb.ClassifyResult:
    if isinstance(result, RequestError):
        return pb.ClassifyResult(error=status(result))
    classes = [
        pb.ClassScore(label=score.label, index=score.index, probability=score.probability)
        for score in result.classes
    ]
    logits = result.logits.tolist() if include_logits else None
    return pb.ClassifyResult(classification=pb.Classification(classes=classes, logits=logits))
