"""Collections of images: embeds them through the pipeline, stores and finds them through the index."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.config import Config
from service.errors import DeadlineExpired, InvalidRequest, ItemNotFound, RequestError, VectorMismatch
from service.metrics import Metrics
from service.pipeline import ImageSource, Pipeline
from service.repository import Model, ModelRepository
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
_MAX_PENDING_CALLS = 256


@dataclass(frozen=True)
class NewItem:
    """An item to write: an image, which the collection's model embeds, or a float32 [dimension] vector."""

    id: str
    source: ImageSource | Vector
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class StoredItem:
    """A query by a stored item's id."""

    id: str


Query = ImageSource | Vector | StoredItem


class Gallery:
    """What the retrieval service does. Deadlines are loop times, in seconds.

    Methods that name a collection raise CollectionNotFound; all raise DeadlineExpired and Overloaded.
    """

    def __init__(
        self, index: Index, pipeline: Pipeline, repository: ModelRepository, config: Config, metrics: Metrics
    ) -> None:
        self._index, self._pipeline, self._repository, self._metrics = index, pipeline, repository, metrics
        self._max_items = config.max_images_per_request
        self._max_top_k = config.max_top_k
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
            InvalidRequest: no items, or too many.
        """
        self._check_count("items", items)
        spec = (await self.describe(collection, deadline)).spec
        _check_fingerprint(spec, fingerprint)
        vectors, model = await self._vectors(spec, [item.source for item in items], deadline)
        errors: list[RequestError | None] = [
            vector if isinstance(vector, RequestError) else None for vector in vectors
        ]
        good = {
            i: Item(items[i].id, vector, items[i].attributes)
            for i, vector in enumerate(vectors)
            if not isinstance(vector, RequestError)
        }
        try:
            if good:
                await self._write(lambda: self._index.upsert(collection, list(good.values())), deadline)
        except (InvalidRequest, VectorMismatch):
            # None was written. Now each for itself, so that only the bad ones fail.
            for i, item in good.items():
                try:
                    await self._write(partial(self._index.upsert, collection, [item]), deadline)
                except (InvalidRequest, VectorMismatch) as error:
                    errors[i] = error
        return errors, model

    async def delete(self, collection: str, ids: Sequence[str], deadline: float) -> int:
        """Remove items; gives how many were there."""
        self._check_count("ids", ids)
        return await self._write(lambda: self._index.delete(collection, ids), deadline)

    async def get(self, collection: str, ids: Sequence[str], deadline: float) -> list[Item]:
        """The items that are there, in the order asked for."""
        self._check_count("ids", ids)
        return await self._read(lambda: self._index.get(collection, ids), deadline)

    async def count(self, collection: str, deadline: float) -> int:
        """How many items the collection has."""
        return await self._read(lambda: self._index.count(collection), deadline)

    async def search(
        self, collection: str, queries: Sequence[Query], k: int, fingerprint: str, deadline: float
    ) -> tuple[list[list[Neighbor] | RequestError], Model | None]:
        """The nearest items of each query, or its own error, and the model that embedded images, if any.

        Raises:
            VectorMismatch: `fingerprint` isn't the collection's, or no loaded model makes its vectors.
            InvalidRequest: no queries or too many, or too large a `k`.
        """
        self._check_count("queries", queries)
        if k > self._max_top_k:
            raise InvalidRequest(f"top_k is {k}; expected at most {self._max_top_k}")
        spec = (await self.describe(collection, deadline)).spec
        _check_fingerprint(spec, fingerprint)
        sources = await self._resolve_ids(collection, queries, deadline)
        vectors, model = await self._vectors(spec, sources, deadline)
        # A stored item finds itself first, so one more is looked for.
        wanted = k + any(isinstance(query, StoredItem) for query in queries)
        good = {i: vector for i, vector in enumerate(vectors) if not isinstance(vector, RequestError)}
        found: dict[int, list[Neighbor] | RequestError] = {
            i: vector for i, vector in enumerate(vectors) if isinstance(vector, RequestError)
        }
        try:
            if good:
                results = await self._search(collection, list(good.values()), wanted, deadline)
                found.update(zip(good, results, strict=True))
        except (InvalidRequest, VectorMismatch):
            for i, vector in good.items():
                try:
                    found[i] = (await self._search(collection, [vector], wanted, deadline))[0]
                except (InvalidRequest, VectorMismatch) as error:
                    found[i] = error
        answers: list[list[Neighbor] | RequestError] = []
        for i, query in enumerate(queries):
            answer = found[i]
            if not isinstance(answer, RequestError):
                own = query.id if isinstance(query, StoredItem) else None
                answer = [neighbor for neighbor in answer if neighbor.id != own][:k]
            answers.append(answer)
        return answers, model

    async def _search(
        self, collection: str, vectors: list[Vector], k: int, deadline: float
    ) -> list[list[Neighbor]]:
        started = time.perf_counter()
        found = await self._read(lambda: self._index.search(collection, np.stack(vectors), k), deadline)
        self._metrics.search.observe(time.perf_counter() - started)
        return found

    async def _resolve_ids(
        self, collection: str, queries: Sequence[Query], deadline: float
    ) -> list[ImageSource | Vector | RequestError]:
        ids = [query.id for query in queries if isinstance(query, StoredItem)]
        stored = {item.id: item.vector for item in await self.get(collection, ids, deadline)} if ids else {}
        return [
            stored.get(query.id, ItemNotFound(f"no item {query.id!r} in collection {collection!r}"))
            if isinstance(query, StoredItem)
            else query
            for query in queries
        ]

    async def _vectors(
        self, spec: CollectionSpec, sources: Sequence[ImageSource | Vector | RequestError], deadline: float
    ) -> tuple[list[Vector | RequestError], Model | None]:
        """Images embedded, vectors checked; errors stay where they are."""
        vectors: dict[int, Vector | RequestError] = {}
        images: dict[int, ImageSource] = {}
        for i, source in enumerate(sources):
            if isinstance(source, RequestError):
                vectors[i] = source
            elif isinstance(source, np.ndarray):
                vectors[i] = _checked(spec, source)
            else:
                images[i] = source
        model = self._model_for_images(spec) if images else None
        if model is not None:
            outputs = await self._pipeline.infer(model, list(images.values()), deadline)
            for i, output in zip(images, outputs, strict=True):
                vectors[i] = output if isinstance(output, RequestError) else output.embedding
        return [vectors[i] for i in range(len(sources))], model

    def _model_for_images(self, spec: CollectionSpec) -> Model:
        model = self.model_of(spec)
        if model is None:
            loaded = ", ".join(
                f"{model.manifest.name} (version {model.manifest.version}, fingerprint {model.fingerprint})"
                for model in self._repository.models
            )
            raise VectorMismatch(
                f"collection {spec.name!r} takes vectors of fingerprint {spec.fingerprint or '(none)'!r}, "
                f"and no loaded model makes these from images; the models there are: {loaded or 'none'}"
            )
        return model

    def _check_count(self, what: str, values: Sequence[object]) -> None:
        if not 1 <= len(values) <= self._max_items:
            raise InvalidRequest(f"the request has {len(values)} {what}; expected 1 to {self._max_items}")

    async def _read(self, call: Callable[[], T], deadline: float) -> T:
        return await _in_time(self._readers.run(call), deadline)

    async def _write(self, call: Callable[[], T], deadline: float) -> T:
        return await _in_time(self._writer.run(call), deadline)

    def close(self) -> None:
        """End the threads, then close the index."""
        self._readers.close()
        self._writer.close()
        self._index.close()


def _checked(spec: CollectionSpec, vector: Vector) -> Vector | VectorMismatch:
    if len(vector) == spec.dimension:
        return vector
    return VectorMismatch(
        f"the vector has {len(vector)} dimensions; collection {spec.name!r} has {spec.dimension}"
    )


def _check_fingerprint(spec: CollectionSpec, fingerprint: str) -> None:
    if fingerprint and spec.fingerprint and fingerprint != spec.fingerprint:
        raise VectorMismatch(
            f"the vectors' fingerprint is {fingerprint!r}; "
            f"collection {spec.name!r} takes {spec.fingerprint!r}"
        )


async def _in_time(work: Awaitable[T], deadline: float) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExpired("the deadline passed before the index had answered") from None
