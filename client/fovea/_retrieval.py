"""Collections, items and neighbours: requests and replies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fovea._batches import Limits
from fovea._checks import at_least_one
from fovea._images import to_message
from fovea._operations import Operation
from fovea.errors import FoveaError, from_status
from fovea.types import AttributeValue, Collection, Embedding, Item, Neighbor, Query, StoredItem
from fovea.v1 import model_pb2, retrieval_pb2

METRICS = {
    "cosine": retrieval_pb2.METRIC_COSINE,
    "inner_product": retrieval_pb2.METRIC_INNER_PRODUCT,
    "l2": retrieval_pb2.METRIC_L2,
}
# The server's limit on queries × top_k; a batch of queries is split to stay below it.
_MAX_NEIGHBORS = 10_000
_METRIC_NAMES = {value: name for name, value in METRICS.items()}


class Upsert(Operation[Item, None]):
    """RetrievalService.Upsert; an item's result is None when it was written."""

    def __init__(self, limits: Limits, collection: str, fingerprint: str) -> None:
        super().__init__(limits)
        self._collection = collection
        self._fingerprint = fingerprint

    def message(self, source: Item) -> retrieval_pb2.UpsertItem:
        attributes = {name: _attribute(name, value) for name, value in source.attributes.items()}
        if source.image is not None:
            image = to_message(source.image, self.limits.max_bytes)
            return retrieval_pb2.UpsertItem(id=source.id, image=image, attributes=attributes)
        return retrieval_pb2.UpsertItem(id=source.id, vector=_vector(source.vector), attributes=attributes)

    def request(self, messages: Sequence[retrieval_pb2.UpsertItem]) -> retrieval_pb2.UpsertRequest:
        return retrieval_pb2.UpsertRequest(
            collection=self._collection, items=messages, fingerprint=self._fingerprint
        )

    def read(self, reply: retrieval_pb2.UpsertResponse) -> list[FoveaError | None]:
        return [
            from_status(result.error.code, result.error.message, of_image=False)
            if result.HasField("error")
            else None
            for result in reply.results
        ]


class Search(Operation[Query, list[Neighbor]]):
    """RetrievalService.Search."""

    def __init__(self, limits: Limits, collection: str, top_k: int, fingerprint: str) -> None:
        self._top_k = at_least_one("top_k", top_k)
        super().__init__(limits.at_most(max(1, _MAX_NEIGHBORS // top_k)))
        self._collection = collection
        self._fingerprint = fingerprint

    def message(self, source: Query) -> retrieval_pb2.SearchQuery:
        if source.image is not None:
            return retrieval_pb2.SearchQuery(image=to_message(source.image, self.limits.max_bytes))
        if source.vector is not None:
            return retrieval_pb2.SearchQuery(vector=_vector(source.vector))
        return retrieval_pb2.SearchQuery(id=source.id or "")

    def request(self, messages: Sequence[retrieval_pb2.SearchQuery]) -> retrieval_pb2.SearchRequest:
        return retrieval_pb2.SearchRequest(
            collection=self._collection,
            queries=messages,
            top_k=self._top_k,
            fingerprint=self._fingerprint,
        )

    def read(self, reply: retrieval_pb2.SearchResponse) -> list[list[Neighbor] | FoveaError]:
        return [
            from_status(result.error.code, result.error.message, of_image=False)
            if result.HasField("error")
            else [
                Neighbor(neighbor.id, neighbor.score, _attributes(neighbor.attributes))
                for neighbor in result.neighbors.neighbors
            ]
            for result in reply.results
        ]


def common_fingerprint(stated: str | None, values: Iterable[Item | Query]) -> str:
    """What made the vectors: as stated, or as the embeddings among them say.

    Raises:
        ValueError: they come from different models.
    """
    found = {value.vector.fingerprint for value in values if isinstance(value.vector, Embedding)}
    if stated:
        found.add(stated)
    if len(found) > 1:
        raise ValueError(f"the vectors come from different models: fingerprints {', '.join(sorted(found))}")
    return found.pop() if found else ""


def create_request(
    name: str,
    model: str | None,
    version: str | None,
    metric: str,
    dimension: int | None,
    fingerprint: str | None,
) -> retrieval_pb2.CreateCollectionRequest:
    """The request that makes a collection.

    Raises:
        ValueError: an unknown metric, or both a model and what stands for one.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; expected one of {', '.join(METRICS)}")
    request = retrieval_pb2.CreateCollectionRequest(collection=name, metric=METRICS[metric])
    if dimension is None:
        if fingerprint:
            raise ValueError("fingerprint= needs dimension=; a collection of a model takes the model's own")
        if model or version:
            request.model.model = model or ""
            request.model.version = version or ""
        return request
    if model or version:
        raise ValueError("give either model= (and version=) or dimension=; a model sets its own dimension")
    request.external.dimension = at_least_one("dimension", dimension)
    request.external.fingerprint = fingerprint or ""
    return request


def read_collection(collection: retrieval_pb2.Collection) -> Collection:
    """The typed value."""
    return Collection(
        name=collection.name,
        dimension=collection.dimension,
        metric=_METRIC_NAMES.get(collection.metric, "unknown"),
        fingerprint=collection.fingerprint,
        count=collection.count,
        model=collection.model.name,
        version=collection.model.version,
    )


def read_items(reply: retrieval_pb2.GetResponse) -> list[StoredItem]:
    """The typed values."""
    return [
        StoredItem(
            id=item.id,
            attributes=_attributes(item.attributes),
            vector=np.array(item.vector.values, np.float32) if item.HasField("vector") else None,
        )
        for item in reply.items
    ]


def chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """The ids in requests of at most that many.

    Raises:
        TypeError: one id was given where several are expected.
    """
    if isinstance(ids, str):
        raise TypeError(f"expected several ids; put {ids!r} into a list")
    listed = list(ids)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


def _vector(values: ArrayLike | Embedding | None) -> model_pb2.Vector:
    numbers = np.asarray(values.vector if isinstance(values, Embedding) else values, np.float32)
    if numbers.ndim != 1:
        raise ValueError(f"a vector has shape [dimension]; got {list(numbers.shape)}")
    return model_pb2.Vector(values=numbers.tolist())


def _attribute(name: str, value: AttributeValue) -> retrieval_pb2.AttributeValue:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool):  # before int, which it is too
        return retrieval_pb2.AttributeValue(bool_value=plain)
    if isinstance(plain, str):
        return retrieval_pb2.AttributeValue(string_value=plain)
    if isinstance(plain, int):
        if not -(2**63) <= plain < 2**63:
            raise ValueError(f"attribute {name!r} is {plain}; expected an integer of 64 bits")
        return retrieval_pb2.AttributeValue(int_value=plain)
    if isinstance(plain, float):
        return retrieval_pb2.AttributeValue(double_value=plain)
    raise TypeError(f"attribute {name!r} is a {type(value).__name__}; expected str, int, float or bool")


def _attributes(messages: Mapping[str, retrieval_pb2.AttributeValue]) -> dict[str, AttributeValue]:
    values: dict[str, AttributeValue] = {}
    for name, message in messages.items():
        kind = message.WhichOneof("kind")
        if kind is not None:
            values[name] = getattr(message, kind)
    return values
