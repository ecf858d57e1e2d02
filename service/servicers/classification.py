"""fovea.v1.ClassificationService: proto ↔ plain values."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc.aio
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc, status_pb2

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
)
from service.servicers.scores import ScoreWriter
from service.servicers.streams import Answer, OrderedStream

_DEFAULT_TOP_K = 5
_SMALLER = "ask for fewer classes, without logits, or send fewer images at a time"


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Names what is on images."""

    def __init__(
        self, repository: ModelRepository, pipeline: Pipeline, config: Config, draining: asyncio.Event
    ) -> None:
        self._repository, self._pipeline = repository, pipeline
        self._config, self._draining = config, draining
        self._writers: dict[str, ScoreWriter] = {}  # by fingerprint

    async def Classify(
        self, request: pb.ClassifyRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.ClassifyResponse:
        """One request, one reply."""
        wanted = self._understand(request, context.time_remaining())
        response = pb.ClassifyResponse()
        predictions = await self._pipeline.infer(wanted)
        self._fill(response, wanted.model, wanted.top_k, request.include_logits, predictions)
        return response

    async def ClassifyStream(  # type: ignore[override] # a coroutine that reads and writes by itself
        self,
        request_iterator: AsyncIterator[pb.ClassifyStreamRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Many requests, their replies in order."""
        stream = OrderedStream(
            self._pipeline, self._understand_message, _failed, self._config, self._draining
        )
        await stream.run(context)

    def _understand(self, request: pb.ClassifyRequest, timeout_s: float | None) -> InferenceRequest:
        model = self._repository.get(request.model, request.version)
        name_model(model)
        model.check_classifies()
        return InferenceRequest(
            model,
            image_sources(request.images, self._config),
            deadline_in(timeout_s, model.default_timeout_ms / 1000),
            request.top_k or _DEFAULT_TOP_K,
            priority_of(request),
        )

    def _understand_message(
        self, message: pb.ClassifyStreamRequest
    ) -> tuple[InferenceRequest, Answer[pb.ClassifyStreamResponse]]:
        request = message.request
        wanted = self._understand(request, message.timeout_ms / 1000 or None)
        return wanted, partial(self._answer, message.id, wanted.top_k, request.include_logits)

    def _answer(
        self,
        message_id: int,
        k: int,
        include_logits: bool,
        model: Model,
        predictions: Sequence[Prediction | RequestError],
    ) -> pb.ClassifyStreamResponse:
        answer = pb.ClassifyStreamResponse(id=message_id)
        self._fill(answer.response, model, k, include_logits, predictions)
        return answer

    def _fill(
        self,
        response: pb.ClassifyResponse,
        model: Model,
        k: int,
        include_logits: bool,
        predictions: Sequence[Prediction | RequestError],
    ) -> None:
        set_maker(response.model, model)
        writer = self._writers.get(model.fingerprint)
        if writer is None:
            writer = self._writers[model.fingerprint] = ScoreWriter(model.manifest.labels)
        results = writer.write(predictions, k, include_logits=include_logits)
        check_reply_size(len(results), self._config.max_message_bytes, _SMALLER)
        response.MergeFromString(results)


def _failed(message_id: int, why: status_pb2.Status) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=message_id, error=why)
