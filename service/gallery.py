"""Collections of images: embeds them through the pipeline, stores and finds them through the index."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from service.config import Config
from service.errors import (
    DeadlineExpired,
    InferenceFailed,
    InvalidImage,
    InvalidRequest,
    ItemNotFound,
    RequestError,
    VectorMismatch,
    listed,
    shorten,
)
from service.group import Priority
from service.metrics import Metrics
from service.model import Model
from service.pipeline import ImageSource, InferenceRequest, Pipeline
from service.repository import ModelRepository
from service.retrieval.checks import check_item, check_query
from service.retrieval.index import (
    AttributeValue,
    CollectionInfo,
    CollectionSpec,
    Index,
    Item,
    Metric,
    Neighbor,
)
from service.workers import WorkerPool

T = TypeVar("T")
Vector = NDArray[np.float32]
log = structlog.get_logger()
_MAX_PENDING_CALLS = 256
_CLOSE_TIMEOUT_S = 30.0
# Queries × top_k. What a search costs grows with it, however small the items are.
MAX_NEIGHBORS_PER_REQUEST = 10_000
# Of the models that an error lists.
_LISTED_MODELS = 10
# What the pipeline returns in an image's place, and logs by itself.
_IMAGE_ERRORS = (InvalidImage, InferenceFailed)


@dataclass(frozen=True)
class NewItem:
    """An item to write.

    Attributes:
        id: the caller's own.
        source: an image, which the collection's model embeds, a float32 [dimension] vector, or the error
            that the item had already.
        attributes: stored beside it.
    """

    id: str
    source: ImageSource | Vector | RequestError
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class StoredItem:
    """A query by a stored item's id."""

    id: str


Query = ImageSource | Vector | StoredItem


class Gallery:
    """What the retrieval service does. Deadlines are loop times, in seconds.

    How many items, queries or ids come is for the caller to bound, before it makes them.
    Methods that name a collection raise CollectionNotFound; all raise DeadlineExpired and Overloaded.
    """

    def __init__(
        self, index: Index, pipeline: Pipeline, repository: ModelRepository, config: Config, metrics: Metrics
    ) -> None:
        self._index, self._pipeline, self._repository, self._metrics = index, pipeline, repository, metrics
        self._max_top_k = config.max_top_k
        self._max_reply_bytes = config.max_message_bytes
        self._readers = WorkerPool("search", config.search_thread_count, _MAX_PENDING_CALLS)
        # The index takes one write at a time; a second thread would only wait.
        self._writer = WorkerPool("write", 1, _MAX_PENDING_CALLS)

    def model_of(self, spec: CollectionSpec) -> Model | None:
        """The loaded model whose vectors the collection takes."""
        return self._repository.by_fingerprint(spec.fingerprint) if spec.fingerprint else None

    async def create_for_model(
        self, name: str, metric: Metric, model_name: str, version: str, deadline: float
    ) -> CollectionInfo:
        """Make a collection of a model's vectors.

        Raises:
            CollectionExists, InvalidRequest, ModelNotFound, Unavailable.
        """
        model = self._repository.get(model_name, version)
        dimension = model.manifest.embedding_dimension
        return await self.create(CollectionSpec(name, dimension, metric, model.fingerprint), deadline)

    async def create(self, spec: CollectionSpec, deadline: float) -> CollectionInfo:
        """Make a collection of the caller's own vectors.

        Raises:
            CollectionExists, InvalidRequest.
        """
        await self._write(lambda: self._index.create(spec), deadline)
        return CollectionInfo(spec, 0)

    async def describe(self, collection: str, deadline: float) -> CollectionInfo:
        """What the collection is made of, and its size."""
        return await self._read(lambda: self._index.describe(collection), deadline)

    async def list_collections(self, deadline: float) -> list[CollectionInfo]:
        """All collections, by name."""
        return await self._read(self._index.list_collections, deadline)

    async def drop(self, collection: str, deadline: float) -> None:
        """Remove a collection and its items."""
        await self._write(lambda: self._index.drop(collection), deadline)

    async def upsert(
        self, collection: str, items: Sequence[NewItem], fingerprint: str, deadline: float
    ) -> tuple[list[RequestError | None], Model | None]:
        """Write items; gives each one's error or None, and the model that embedded the images, if any.

        Raises:
            VectorMismatch: `fingerprint` isn't the collection's, or no loaded model makes its vectors.
        """
        spec = (await self.describe(collection, deadline)).spec
        _check_fingerprint(spec, fingerprint)
        sources = [item.source for item in items]
        vectors, model = await self._vectors(spec, sources, deadline, Priority.BULK)
        candidates = [
            vector if isinstance(vector, RequestError) else Item(item.id, vector, item.attributes)
            for item, vector in zip(items, vectors, strict=True)
        ]
        checked = await self._read(lambda: _checked(partial(check_item, spec), candidates), deadline)
        good = [item for item in checked if isinstance(item, Item)]
        if good:
            await self._write(lambda: self._index.upsert(collection, good), deadline)
        errors = [item if isinstance(item, RequestError) else None for item in checked]
        _log_errors("items_failed", collection, errors)
        return errors, model

    async def delete(self, collection: str, ids: Sequence[str], deadline: float) -> int:
        """Remove items; gives how many were there."""
        return await self._write(lambda: self._index.delete(collection, ids), deadline)

    async def get(
        self, collection: str, ids: Sequence[str], deadline: float, *, include_vectors: bool
    ) -> list[Item]:
        """The items that are there, in the order asked for; without `include_vectors` theirs are [0].

        Raises:
            InvalidRequest: the items are larger than a message may be.
        """
        read = partial(
            self._index.get,
            collection,
            ids,
            include_vectors=include_vectors,
            max_reply_bytes=self._max_reply_bytes,
        )
        return await self._read(read, deadline)

    async def count(self, collection: str, deadline: float) -> int:
        """How many items the collection has."""
        return await self._read(lambda: self._index.count(collection), deadline)

    async def search(
        self, collection: str, queries: Sequence[Query], k: int, fingerprint: str, deadline: float
    ) -> tuple[list[list[Neighbor] | RequestError], Model | None]:
        """The nearest items of each query, or its own error, and the model that embedded images, if any.

        Raises:
            VectorMismatch: `fingerprint` isn't the collection's, or no loaded model makes its vectors.
            InvalidRequest: too large a `k`, more than `MAX_NEIGHBORS_PER_REQUEST`
                neighbours, or neighbours larger than a message may be.
        """
        self._check_neighbors(len(queries), k)
        spec = (await self.describe(collection, deadline)).spec
        _check_fingerprint(spec, fingerprint)
        sources = await self._resolve_ids(collection, queries, deadline)
        vectors, model = await self._vectors(spec, sources, deadline, Priority.INTERACTIVE)
        own_ids = [query.id if isinstance(query, StoredItem) else None for query in queries]
        started = time.perf_counter()
        answers = await self._read(lambda: self._find(spec, vectors, own_ids, k), deadline)
        self._metrics.search.observe(time.perf_counter() - started)
        _log_errors("queries_failed", collection, answers)
        return answers, model

    def _find(
        self,
        spec: CollectionSpec,
        vectors: Sequence[Vector | RequestError],
        own_ids: Sequence[str | None],
        k: int,
    ) -> list[list[Neighbor] | RequestError]:
        checked = _checked(partial(check_query, spec), vectors)
        good = [vector for vector in checked if not isinstance(vector, RequestError)]
        if not good:
            return [error for error in checked if isinstance(error, RequestError)]
        found = iter(
            self._index.search(
                spec.name,
                np.stack(good),
                k,
                excluded_ids=[
                    own_id
                    for own_id, vector in zip(own_ids, checked, strict=True)
                    if not isinstance(vector, RequestError)
                ],
                max_reply_bytes=self._max_reply_bytes,
            )
        )
        return [vector if isinstance(vector, RequestError) else next(found) for vector in checked]

    async def _resolve_ids(
        self, collection: str, queries: Sequence[Query], deadline: float
    ) -> list[ImageSource | Vector | RequestError]:
        ids = [query.id for query in queries if isinstance(query, StoredItem)]
        stored = await self._read(lambda: self._index.vectors(collection, ids), deadline) if ids else {}
        return [
            stored.get(query.id, ItemNotFound(f"no item {shorten(query.id)} in collection {collection}"))
            if isinstance(query, StoredItem)
            else query
            for query in queries
        ]

    async def _vectors(
        self,
        spec: CollectionSpec,
        sources: Sequence[ImageSource | Vector | RequestError],
        deadline: float,
        priority: Priority,
    ) -> tuple[list[Vector | RequestError], Model | None]:
        """Images embedded; vectors and errors stay as they are."""
        vectors: dict[int, Vector | RequestError] = {}
        images: dict[int, ImageSource] = {}
        for i, source in enumerate(sources):
            if isinstance(source, RequestError | np.ndarray):
                vectors[i] = source
            else:
                images[i] = source
        model = self._model_for_images(spec) if images else None
        if model is not None:
            outputs = await self._pipeline.infer(
                InferenceRequest(model, list(images.values()), deadline, priority=priority)
            )
            for i, output in zip(images, outputs, strict=True):
                vectors[i] = output if isinstance(output, RequestError) else output.embedding
        return [vectors[i] for i in range(len(sources))], model

    def _model_for_images(self, spec: CollectionSpec) -> Model:
        model = self.model_of(spec)
        if model is None:
            loaded = [
                f"{model.manifest.name} (version {model.manifest.version}, fingerprint {model.fingerprint})"
                for model in self._repository.models
            ]
            raise VectorMismatch(
                f"collection {spec.name} takes vectors of fingerprint "
                f"{shorten(spec.fingerprint) if spec.fingerprint else '(none)'}, and no "
                f"loaded model makes these from images; serve the version that made the collection, or drop "
                f"it and index again; the models there are: {listed(loaded, _LISTED_MODELS)}"
            )
        return model

    def _check_neighbors(self, queries: int, k: int) -> None:
        if k > self._max_top_k:
            raise InvalidRequest(f"top_k is {k}; expected at most {self._max_top_k}")
        if queries * k > MAX_NEIGHBORS_PER_REQUEST:
            raise InvalidRequest(
                f"{queries} queries × top_k {k} are {queries * k:,} neighbours; expected at most "
                f"{MAX_NEIGHBORS_PER_REQUEST:,} in one request: send fewer queries at a time, or ask for "
                "fewer neighbours"
            )

    async def _read(self, call: Callable[[], T], deadline: float) -> T:
        return await _in_time(
            self._readers.run(call), deadline, "the deadline passed before the index had answered"
        )

    async def _write(self, call: Callable[[], T], deadline: float) -> T:
        def write() -> T:
            # In the thread: there the write begins, perhaps long after it was asked for.
            if time.monotonic() >= deadline:
                raise DeadlineExpired("the deadline passed before the write began; nothing was written")
            return call()

        return await _in_time(
            self._writer.run(write),
            deadline,
            "the deadline passed before the write was acknowledged; it may be done all the same",
        )

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> bool:
        """End the threads, then close the index; whether all ended within the time.

        An index in the middle of a write that hangs is left as it is: it survives the process's death.
        """
        readers_ended = self._readers.close(timeout_s)
        if not self._writer.close(timeout_s):
            return False
        self._index.close()
        return readers_ended


def _checked(check: Callable[[T], None], values: Sequence[T | RequestError]) -> list[T | RequestError]:
    """The values, with its error in the place of each that fails the check."""
    checked: list[T | RequestError] = []
    for value in values:
        try:
            if not isinstance(value, RequestError):
                check(value)
            checked.append(value)
        except (InvalidRequest, VectorMismatch) as error:
            checked.append(error)
    return checked


def _log_errors(event: str, collection: str, results: Sequence[object]) -> None:
    """One line for all that failed for another reason than their image."""
    errors = [
        result
        for result in results
        if isinstance(result, RequestError) and not isinstance(result, _IMAGE_ERRORS)
    ]
    if errors:
        log.warning(event, collection=collection, count=len(errors), first_error=str(errors[0]))


def _check_fingerprint(spec: CollectionSpec, fingerprint: str) -> None:
    if fingerprint and spec.fingerprint and fingerprint != spec.fingerprint:
        raise VectorMismatch(
            f"the vectors' fingerprint is {shorten(fingerprint)}; "
            f"collection {spec.name} takes {shorten(spec.fingerprint)}"
        )


async def _in_time(work: Awaitable[T], deadline: float, message: str) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExpired(message) from None
