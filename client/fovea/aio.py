# ruff: noqa: ASYNC109 - `timeout` goes to the server as the call's deadline, which asyncio.timeout can't do
"""The client for asyncio: `fovea.client.Client`, awaited, with the same names, results and errors."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from types import TracebackType
from typing import Any

import grpc

from fovea import _health
from fovea._aio_caller import AsyncCaller
from fovea._aio_collection_calls import AsyncCollectionCalls
from fovea._aio_item_calls import AsyncItemCalls
from fovea._batches import Limits
from fovea._channel import channel_options, checked_target, default_target, open_aio_channel
from fovea._checks import at_least_one
from fovea._images import several
from fovea._timeout import Deadline
from fovea._vision import Classify, Embed, read_loading, read_model
from fovea.client import DEFAULT_MAX_IMAGES, DEFAULT_MAX_MESSAGE_BYTES
from fovea.errors import DeadlineExceeded, FoveaError, NotFound, Unavailable
from fovea.types import (
    Classification,
    Embedding,
    ImageSource,
    LoadingModel,
    Model,
    Priority,
)
from fovea.v1 import (
    classification_pb2_grpc,
    embedding_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    retrieval_pb2_grpc,
)


class AsyncClient(AsyncCollectionCalls, AsyncItemCalls):
    """Asks a Fovea server from one event loop; arguments, results and errors as in `fovea.Client`.

    Files are read in threads. A call that is cancelled is cancelled on the server too.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout: float | None = 30.0,
        retries: int = 3,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        max_images: int = DEFAULT_MAX_IMAGES,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        self.target = target = checked_target(target or default_target())
        self._limits = Limits.of_message(at_least_one("max_images", max_images), max_message_bytes)
        self._caller = AsyncCaller(target, timeout, tuple(metadata))
        self._channel = open_aio_channel(target, credentials, channel_options(max_message_bytes, retries))
        self._classification = classification_pb2_grpc.ClassificationServiceStub(self._channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._retrieval = retrieval_pb2_grpc.RetrievalServiceStub(self._channel)
        self._health: Any = self._channel.unary_unary(_health.METHOD)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        self._caller.close()
        await self._channel.close()

    # Classification

    async def classify(
        self,
        image: ImageSource,
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int = 5,
        include_logits: bool = False,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> Classification:
        """Name what is on one image."""
        operation = Classify(self._limits, model, version, top_k, include_logits, priority)
        return await self._caller.one(self._classification.Classify, operation, image, timeout)

    async def classify_batch(
        self,
        images: Iterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int = 5,
        include_logits: bool = False,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> list[Classification | FoveaError]:
        """Name what is on each image; a FoveaError in the place of one that failed."""
        operation = Classify(self._limits, model, version, top_k, include_logits, priority)
        return await self._caller.many(self._classification.Classify, operation, several(images), timeout)

    def classify_stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int = 5,
        include_logits: bool = False,
        batch_size: int = 16,
        window: int = 4,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> AsyncGenerator[Classification | FoveaError, None]:
        """Name what is on each of any number of images, as they come; `images` may be async.

        Leaving the iterator ends the call; `aclose()` does so at once.
        """
        operation = Classify(
            self._limits.at_most(batch_size), model, version, top_k, include_logits, priority
        )
        return self._caller.stream(
            self._classification.ClassifyStream, operation, several(images), window, timeout
        )

    # Embedding

    async def embed(
        self,
        image: ImageSource,
        *,
        model: str | None = None,
        version: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> Embedding:
        """Turn one image into a vector."""
        operation = Embed(self._limits, model, version, priority)
        return await self._caller.one(self._embedding.Embed, operation, image, timeout)

    async def embed_batch(
        self,
        images: Iterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> list[Embedding | FoveaError]:
        """Turn each image into a vector; a FoveaError in the place of one that failed."""
        operation = Embed(self._limits, model, version, priority)
        return await self._caller.many(self._embedding.Embed, operation, several(images), timeout)

    def embed_stream(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        batch_size: int = 16,
        window: int = 4,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> AsyncGenerator[Embedding | FoveaError, None]:
        """Turn each of any number of images into a vector; as `classify_stream`."""
        operation = Embed(self._limits.at_most(batch_size), model, version, priority)
        return self._caller.stream(self._embedding.EmbedStream, operation, several(images), window, timeout)

    # Models and health

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models that the server has."""
        reply = await self._caller.call(self._models.ListModels, models_pb2.ListModelsRequest(), timeout)
        return [read_model(model) for model in reply.models]

    async def loading(self, *, timeout: float | None = None) -> list[LoadingModel]:
        """The models that the server is still loading."""
        reply = await self._caller.call(self._models.ListModels, models_pb2.ListModelsRequest(), timeout)
        return read_loading(reply)

    async def model(
        self, name: str | None = None, *, version: str | None = None, timeout: float | None = None
    ) -> Model:
        """One model; without a name the server's default."""
        request = models_pb2.GetModelRequest(model=name or "", version=version or "")
        return read_model((await self._caller.call(self._models.GetModel, request, timeout)).model)

    async def ready(self, model: str | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server (or one model) is loaded, warm and not draining; False if nobody answers."""
        try:
            return _health.is_serving(
                await self._caller.call(self._health, _health.encode_request(model), timeout)
            )
        except (Unavailable, DeadlineExceeded):
            return False
        except NotFound:
            raise NotFound(_health.unknown(self.target, model)) from None

    async def wait_until_ready(self, model: str | None = None, *, timeout: float = 60.0) -> None:
        """Return as soon as `ready` holds; DeadlineExceeded if it does not in time."""
        deadline = Deadline(timeout)
        pause_s = 0.05
        while left := deadline.left():
            if await self.ready(model, timeout=left):
                return
            await asyncio.sleep(min(pause_s, deadline.left()))
            pause_s = min(2 * pause_s, 1.0)
        raise DeadlineExceeded(_health.not_ready(self.target, model, timeout))


Client = AsyncClient
"""For `from fovea import aio`: `aio.Client`."""
