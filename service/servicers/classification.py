"""fovea.v1.ClassificationService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc, status_pb2

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
        model = self._repository.get(request.model, request.version)
        name_model(model)
        predictions = await self._pipeline.infer(
            model,
            image_sources(request.images, self._config),
            deadline_of(context, model.default_timeout_ms),
            top_k=request.top_k or _DEFAULT_TOP_K,
            priority=priority_of(request),
        )
        response = pb.ClassifyResponse()
        _fill(response, model, request, predictions)
        return response

    async def ClassifyStream(  # type: ignore[override] # a coroutine that reads and writes by itself
        self,
        request_iterator: AsyncIterator[pb.ClassifyStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Many requests, their replies in order."""
        stream = OrderedStream(
            self._pipeline, self._begin, self._answer, _failed, self._config, self._draining
        )
        await stream.run(context)

    async def _begin(self, message: pb.ClassifyStreamRequest) -> Work:
        request = message.request
        model = self._repository.get(request.model, request.version)
        name_model(model)
        return await self._pipeline.begin_message(
            model,
            image_sources(request.images, self._config),
            deadline_in(message.timeout_ms or model.default_timeout_ms),
            top_k=request.top_k or _DEFAULT_TOP_K,
            priority=priority_of(request),
        )

    async def _answer(self, message: pb.ClassifyStreamRequest, work: Work) -> pb.ClassifyStreamResponse:
        answer = pb.ClassifyStreamResponse(id=message.id)
        _fill(answer.response, work.model, message.request, await self._pipeline.finish(work))
        return answer


def _failed(message: pb.ClassifyStreamRequest, why: status_pb2.Status) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=message.id, error=why)


def _fill(
    response: pb.ClassifyResponse,
    model: Model,
    request: pb.ClassifyRequest,
    predictions: Sequence[Prediction | RequestError],
) -> None:
    set_maker(response.model, model)
    k, labels = request.top_k or _DEFAULT_TOP_K, model.manifest.labels
    for prediction in predictions:
        result = response.results.add()
        if isinstance(prediction, RequestError):
            result.error.CopyFrom(status(prediction))
            continue
        classification = result.classification
        add = classification.classes.add
        # Fields set in place: three times as quick as nested messages made and copied.
        for index, probability in zip(prediction.classes[:k], prediction.probabilities, strict=False):
            add(label=labels[index], index=index, probability=probability)
        if request.include_logits:
            classification.logits.extend(prediction.logits.tolist())
