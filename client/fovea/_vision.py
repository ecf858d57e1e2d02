"""Classification, embedding and the list of models: requests and replies."""

from collections.abc import Sequence

import numpy as np

from fovea._batches import Limits
from fovea._checks import at_least_one
from fovea._operations import ImageOperation
from fovea.errors import FoveaError, from_status
from fovea.types import Classification, ClassScore, Embedding, LoadingModel, Model, Preprocessing, Priority
from fovea.v1 import classification_pb2, embedding_pb2, image_pb2, models_pb2, priority_pb2

_TASKS = {
    models_pb2.TASK_SINGLE_LABEL: "single_label",
    models_pb2.TASK_MULTI_LABEL: "multi_label",
    models_pb2.TASK_EMBEDDING: "embedding",
}

_PRIORITIES = {"interactive": priority_pb2.PRIORITY_INTERACTIVE, "bulk": priority_pb2.PRIORITY_BULK}


def _priority(name: str) -> priority_pb2.Priority.ValueType:
    if name not in _PRIORITIES:
        raise ValueError(f"priority is {name!r}; expected one of {', '.join(_PRIORITIES)}")
    return _PRIORITIES[name]


class Classify(ImageOperation[Classification]):
    """ClassificationService."""

    def __init__(
        self,
        limits: Limits,
        model: str | None,
        version: str | None,
        top_k: int,
        include_logits: bool,
        priority: Priority,
    ) -> None:
        super().__init__(limits)
        self._model = model or ""
        self._version = version or ""
        self._top_k = at_least_one("top_k", top_k)
        self._include_logits = include_logits
        self._priority = _priority(priority)

    def request(self, messages: Sequence[image_pb2.Image]) -> classification_pb2.ClassifyRequest:
        return classification_pb2.ClassifyRequest(
            images=messages,
            model=self._model,
            version=self._version,
            top_k=self._top_k,
            include_logits=self._include_logits,
            priority=self._priority,
        )

    def stream_request(
        self, number: int, messages: Sequence[image_pb2.Image], timeout_ms: int
    ) -> classification_pb2.ClassifyStreamRequest:
        return classification_pb2.ClassifyStreamRequest(
            id=number, request=self.request(messages), timeout_ms=timeout_ms, combine_replies=True
        )

    def read(self, reply: classification_pb2.ClassifyResponse) -> list[Classification | FoveaError]:
        return [
            from_status(result.error.code, result.error.message, of_image=True)
            if result.HasField("error")
            else Classification(
                classes=tuple(
                    ClassScore(score.label, score.index, score.probability)
                    for score in result.classification.classes
                ),
                logits=np.array(result.classification.logits, np.float32) if self._include_logits else None,
                model=reply.model.name,
                version=reply.model.version,
            )
            for result in reply.results
        ]


class Embed(ImageOperation[Embedding]):
    """EmbeddingService."""

    def __init__(self, limits: Limits, model: str | None, version: str | None, priority: Priority) -> None:
        super().__init__(limits)
        self._model = model or ""
        self._version = version or ""
        self._priority = _priority(priority)

    def request(self, messages: Sequence[image_pb2.Image]) -> embedding_pb2.EmbedRequest:
        return embedding_pb2.EmbedRequest(
            images=messages, model=self._model, version=self._version, priority=self._priority
        )

    def stream_request(
        self, number: int, messages: Sequence[image_pb2.Image], timeout_ms: int
    ) -> embedding_pb2.EmbedStreamRequest:
        return embedding_pb2.EmbedStreamRequest(
            id=number, request=self.request(messages), timeout_ms=timeout_ms, combine_replies=True
        )

    def read(self, reply: embedding_pb2.EmbedResponse) -> list[Embedding | FoveaError]:
        return [
            from_status(result.error.code, result.error.message, of_image=True)
            if result.HasField("error")
            else Embedding(
                vector=np.array(result.embedding.values, np.float32),
                fingerprint=reply.fingerprint,
                model=reply.model.name,
                version=reply.model.version,
            )
            for result in reply.results
        ]


def read_model(model: models_pb2.Model) -> Model:
    """The typed value."""
    return Model(
        name=model.name,
        version=model.version,
        is_default=model.is_default,
        architecture=model.architecture,
        task=_TASKS.get(model.task, "unknown"),
        input_height=model.input_height,
        input_width=model.input_width,
        labels=tuple(model.labels),
        embedding_dimension=model.embedding_dimension,
        execution_provider=model.execution_provider,
        precision=model.precision,
        fingerprint=model.fingerprint,
        max_batch_size=model.max_batch_size,
        preprocessing=_preprocessing(model),
    )


def _preprocessing(model: models_pb2.Model) -> Preprocessing | None:
    if not model.HasField("preprocessing"):
        return None
    said = model.preprocessing
    return Preprocessing(said.resize_short_side, said.interpolation, said.jpeg_scaled_decode)


def read_loading(reply: models_pb2.ListModelsResponse) -> list[LoadingModel]:
    """The typed values; none of a server that doesn't say."""
    return [LoadingModel(model.name, model.version, model.is_default) for model in reply.loading]
