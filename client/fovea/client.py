"""The client for threads; `aio.py` has the same for asyncio."""

import time
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import Any

import grpc

from fovea import _health
from fovea._batches import Limits
from fovea._caller import Caller
from fovea._channel import channel_options, checked_target, default_target, open_channel
from fovea._checks import at_least_one
from fovea._collection_calls import CollectionCalls
from fovea._images import several
from fovea._item_calls import ItemCalls
from fovea._timeout import Deadline
from fovea._vision import Classify, Embed, read_loading, read_model
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

DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
DEFAULT_MAX_IMAGES = 32


class Client(CollectionCalls, ItemCalls):
    """Asks a Fovea server; one client serves many threads over one connection.

    Every call takes `timeout`: the seconds that each request may take, over all its attempts; without it
    the client's own holds. A long batch is split into several requests, each with the whole timeout.
    Every call raises a FoveaError when it fails as a whole (see `fovea.errors`); once a batch's first
    request is answered, a later one's failure stands in the place of everything that wasn't answered.

    Args:
        target: the server's address, host:port, or any of gRPC's names (dns:///fovea:50051). Default:
            what the environment variable FOVEA_ADDRESS says, else 127.0.0.1:50051.
        timeout: seconds that a request may take; None or infinity: as long as the server lets it.
        retries: how often a call is tried again when the server is unavailable or says to come back,
            0 to 4. Only calls that do the same when they are done twice: not streams, and not
            creating or dropping a collection.
        max_message_bytes: of a request or reply; the server's own limit is 16 MiB unless configured.
        max_images: images, items, queries or ids per request; longer batches are split.
        credentials: for TLS; None: plaintext.
        metadata: sent with every call.

    Raises:
        ValueError: a value outside its range, or an address that is no host:port and none of gRPC's names.
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
        self._caller = Caller(target, timeout, tuple(metadata))
        self._channel = open_channel(target, credentials, channel_options(max_message_bytes, retries))
        self._classification = classification_pb2_grpc.ClassificationServiceStub(self._channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._retrieval = retrieval_pb2_grpc.RetrievalServiceStub(self._channel)
        self._health: Any = self._channel.unary_unary(_health.METHOD)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way are cancelled."""
        self._caller.close()
        self._channel.close()

    # Classification

    def classify(
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
        """Name what is on one image.

        Args:
            image: a path, a file's bytes, or uint8 RGB [height, width, 3].
            model: default: the server's.
            version: default: the loaded one.
            top_k: how many classes, at least 1.
            include_logits: reply with every class's logit too.
            priority: "bulk" goes after the "interactive" work of all callers, but never starves.
            timeout: in seconds.

        Raises:
            InvalidImage: the image can't be used; says why.
            FailedPrecondition: the model has no classes.
            OSError: the file can't be read.
        """
        operation = Classify(self._limits, model, version, top_k, include_logits, priority)
        return self._caller.one(self._classification.Classify, operation, image, timeout)

    def classify_batch(
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
        """Name what is on each image; arguments as in `classify`.

        Returns:
            One per image, in their order; a FoveaError in the place of an image that failed, or whose
            request did, after an earlier one was answered.
        """
        operation = Classify(self._limits, model, version, top_k, include_logits, priority)
        return self._caller.many(self._classification.Classify, operation, several(images), timeout)

    def classify_stream(
        self,
        images: Iterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int = 5,
        include_logits: bool = False,
        batch_size: int = 16,
        window: int = 4,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> Generator[Classification | FoveaError, None, None]:
        """Name what is on each of any number of images, as they come.

        Args:
            images: read in another thread, at most `batch_size` × `window` ahead of the results taken.
            model: as in `classify`, like the other arguments.
            version: as in `classify`.
            top_k: as in `classify`.
            include_logits: as in `classify`.
            priority: as in `classify`.
            batch_size: images per message; 1 gives each result as soon as it can be had.
            window: messages on the way at once.
            timeout: seconds for each message from when the server reads it; the stream has no end.

        Returns:
            One per image, in their order, a FoveaError in the place of one that failed. The iterator may
            be left at any time (`close()` does so at once); the server then drops what is left.
        """
        operation = Classify(
            self._limits.at_most(batch_size), model, version, top_k, include_logits, priority
        )
        return self._caller.stream(
            self._classification.ClassifyStream, operation, several(images), window, timeout
        )

    # Embedding

    def embed(
        self,
        image: ImageSource,
        *,
        model: str | None = None,
        version: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> Embedding:
        """Turn one image into a vector; arguments and errors as in `classify`."""
        operation = Embed(self._limits, model, version, priority)
        return self._caller.one(self._embedding.Embed, operation, image, timeout)

    def embed_batch(
        self,
        images: Iterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> list[Embedding | FoveaError]:
        """Turn each image into a vector; results as in `classify_batch`."""
        operation = Embed(self._limits, model, version, priority)
        return self._caller.many(self._embedding.Embed, operation, several(images), timeout)

    def embed_stream(
        self,
        images: Iterable[ImageSource],
        *,
        model: str | None = None,
        version: str | None = None,
        batch_size: int = 16,
        window: int = 4,
        priority: Priority = "interactive",
        timeout: float | None = None,
    ) -> Generator[Embedding | FoveaError, None, None]:
        """Turn each of any number of images into a vector; as `classify_stream`."""
        operation = Embed(self._limits.at_most(batch_size), model, version, priority)
        return self._caller.stream(self._embedding.EmbedStream, operation, several(images), window, timeout)

    # Models and health

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """The models that the server has."""
        reply = self._caller.call(self._models.ListModels, models_pb2.ListModelsRequest(), timeout)
        return [read_model(model) for model in reply.models]

    def loading(self, *, timeout: float | None = None) -> list[LoadingModel]:
        """The models that the server is still loading; those are not among `models`."""
        reply = self._caller.call(self._models.ListModels, models_pb2.ListModelsRequest(), timeout)
        return read_loading(reply)

    def model(
        self, name: str | None = None, *, version: str | None = None, timeout: float | None = None
    ) -> Model:
        """One model; without a name the server's default.

        Raises:
            NotFound: lists the models there are.
        """
        request = models_pb2.GetModelRequest(model=name or "", version=version or "")
        return read_model(self._caller.call(self._models.GetModel, request, timeout).model)

    def ready(self, model: str | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server (or one model) is loaded, warm and not draining, by grpc.health.v1.

        False also when nobody answers. An unknown model is a NotFound error.
        """
        try:
            return _health.is_serving(self._caller.call(self._health, _health.encode_request(model), timeout))
        except (Unavailable, DeadlineExceeded):
            return False
        except NotFound:
            raise NotFound(_health.unknown(self.target, model)) from None

    def wait_until_ready(self, model: str | None = None, *, timeout: float = 60.0) -> None:
        """Return as soon as `ready` holds.

        Raises:
            DeadlineExceeded: it did not within `timeout` seconds (infinity: it waits for ever).
        """
        deadline = Deadline(timeout)
        pause_s = 0.05
        while left := deadline.left():
            if self.ready(model, timeout=left):
                return
            time.sleep(min(pause_s, deadline.left()))
            pause_s = min(2 * pause_s, 1.0)
        raise DeadlineExceeded(_health.not_ready(self.target, model, timeout))
