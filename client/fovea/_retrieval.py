"""Items, queries and neighbours: requests and replies."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fovea._batches import Limits
from fovea._checks import at_least_one, at_least_zero, many, of_kind, real, shown
from fovea._filters import filter_message, read_attributes, value_message
from fovea._images import to_message
from fovea._operations import Operation, StreamOperation
from fovea.errors import FoveaError, InvalidArgument, InvalidImage, from_status
from fovea.filters import Filter
from fovea.options import SearchOptions
from fovea.types import Embedding, GroupBy, Item, Neighbor, Query, QueryExpansion, StoredItem
from fovea.v1 import model_pb2, retrieval_pb2

# The server's limit on queries × top_k; a batch of queries is split to stay below it.
_MAX_NEIGHBORS = 10_000
# How the server begins what it says of an item's id and attributes; all else is about its image.
_NOT_OF_THE_IMAGE = ("item ", "an item's ", "attribute ")


class Upsert(StreamOperation[Item, None]):
    """RetrievalService.Upsert and UpsertStream; an item's result is None when it was written."""

    def __init__(self, limits: Limits, collection: str, fingerprint: str) -> None:
        super().__init__(limits)
        self._collection = collection
        self._fingerprint = fingerprint

    def message(self, source: Item) -> retrieval_pb2.UpsertItem:
        attributes = {name: value_message(name, value) for name, value in source.attributes.items()}
        if source.image is not None:
            image = to_message(source.image, self.limits.max_bytes)
            return retrieval_pb2.UpsertItem(id=source.id, image=image, attributes=attributes)
        # A stream's fingerprint is known only with its first embedding.
        self._fingerprint = common_fingerprint(self._fingerprint, [source])
        vector = _vector(f"the vector of item {source.id!r}", source.vector)
        return retrieval_pb2.UpsertItem(id=source.id, vector=vector, attributes=attributes)

    def request(self, messages: Sequence[retrieval_pb2.UpsertItem]) -> retrieval_pb2.UpsertRequest:
        return retrieval_pb2.UpsertRequest(
            collection=self._collection, items=messages, fingerprint=self._fingerprint
        )

    def stream_request(
        self, number: int, messages: Sequence[retrieval_pb2.UpsertItem], timeout_ms: int
    ) -> retrieval_pb2.UpsertStreamRequest:
        return retrieval_pb2.UpsertStreamRequest(
            id=number, request=self.request(messages), timeout_ms=timeout_ms
        )

    def read(self, reply: retrieval_pb2.UpsertResponse) -> list[FoveaError | None]:
        return [read_error(result) for result in reply.results]

    def told(self, message: retrieval_pb2.UpsertItem, result: FoveaError | None) -> FoveaError | None:
        if message.HasField("image") and result and not result.message.startswith(_NOT_OF_THE_IMAGE):
            return _of_image(result)
        return result


def read_error(result: retrieval_pb2.UpsertResult) -> FoveaError | None:
    """Why an item was not written; None when it was."""
    if not result.HasField("error"):
        return None
    return from_status(result.error.code, result.error.message, of_image=False)


class Search(Operation[Query, list[Neighbor]]):
    """RetrievalService.Search."""

    def __init__(
        self, limits: Limits, collection: str, top_k: int, fingerprint: str, options: SearchOptions
    ) -> None:
        self._wanted = _wanted(**options)
        top_k = at_least_one("top_k", top_k)
        most = max(top_k, self._wanted.query_expansion.neighbors)
        super().__init__(limits.at_most(max(1, _MAX_NEIGHBORS // most)))
        self._wanted.collection = collection
        self._wanted.top_k = top_k
        self._wanted.fingerprint = fingerprint

    def message(self, source: Query) -> retrieval_pb2.SearchQuery:
        if source.image is not None:
            return retrieval_pb2.SearchQuery(image=to_message(source.image, self.limits.max_bytes))
        if source.vector is not None:
            return retrieval_pb2.SearchQuery(vector=_vector("vector", source.vector))
        return retrieval_pb2.SearchQuery(id=source.id or "")

    def request(self, messages: Sequence[retrieval_pb2.SearchQuery]) -> retrieval_pb2.SearchRequest:
        request = retrieval_pb2.SearchRequest(queries=messages)
        request.MergeFrom(self._wanted)
        return request

    def read(self, reply: retrieval_pb2.SearchResponse) -> list[list[Neighbor] | FoveaError]:
        return [
            from_status(result.error.code, result.error.message, of_image=False)
            if result.HasField("error")
            else [
                Neighbor(neighbor.id, neighbor.score, read_attributes(neighbor.attributes))
                for neighbor in result.neighbors.neighbors
            ]
            for result in reply.results
        ]

    def told(
        self, message: retrieval_pb2.SearchQuery, result: list[Neighbor] | FoveaError
    ) -> list[Neighbor] | FoveaError:
        # Options that can't be met fail the whole request, so that nothing is left but the image.
        if message.HasField("image") and isinstance(result, FoveaError):
            return _of_image(result)
        return result


def _of_image(error: FoveaError) -> FoveaError:
    """The same error; an invalid argument is an invalid image."""
    return InvalidImage(error.message) if type(error) is InvalidArgument else error


def _wanted(
    filter: Filter | None = None,  # noqa: A002 - as the caller writes it
    min_score: float | None = None,
    group_by: str | GroupBy | None = None,
    offset: int = 0,
    recall: float | None = None,
    expansion: QueryExpansion | None = None,
) -> retrieval_pb2.SearchRequest:
    """The request without its queries.

    Raises:
        TypeError: an unknown option, or a value of another type.
        ValueError: a value outside its range.
    """
    request = retrieval_pb2.SearchRequest(
        filter=filter_message(filter), offset=at_least_zero("offset", offset)
    )
    if min_score is not None:
        request.min_score = real("min_score", min_score)
    if recall is not None:
        request.recall = real("recall", recall)
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall}; expected above 0, and at most 1")
    if group_by is not None:
        group = GroupBy(group_by) if isinstance(group_by, str) else group_by
        request.group_by.attribute = group.attribute
        request.group_by.max_per_group = at_least_one("max_per_group", group.max_per_group)
    if expansion is not None:
        request.query_expansion.neighbors = at_least_one("neighbors", expansion.neighbors)
        request.query_expansion.alpha = real("alpha", expansion.alpha)
    return request


def item_of(value: Item) -> Item:
    """The value.

    Raises:
        TypeError: it is no Item.
    """
    return of_kind("an item", Item, "fovea.Item('a', image='a.jpg')", value)


def items_of(values: Iterable[Item]) -> list[Item]:
    """All of them.

    Raises:
        TypeError: they aren't several, or one is no Item.
    """
    return [item_of(value) for value in many("items", values)]


def queries_of(values: Iterable[Query]) -> list[Query]:
    """All of them.

    Raises:
        TypeError: they aren't several, or one is no Query.
    """
    example = "fovea.Query(image='photo.jpg')"
    return [of_kind("a query", Query, example, value) for value in many("queries", values)]


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


def scan_request(
    collection: str, condition: Filter | None, include_vectors: bool, page_size: int
) -> retrieval_pb2.ScanRequest:
    """The request for the first page."""
    return retrieval_pb2.ScanRequest(
        collection=collection,
        filter=filter_message(condition),
        include_vectors=include_vectors,
        page_size=at_least_one("page_size", page_size),
    )


def read_items(reply: retrieval_pb2.GetResponse | retrieval_pb2.ScanResponse) -> list[StoredItem]:
    """The typed values."""
    return [
        StoredItem(
            id=item.id,
            attributes=read_attributes(item.attributes),
            vector=np.array(item.vector.values, np.float32) if item.HasField("vector") else None,
        )
        for item in reply.items
    ]


def which(ids: Iterable[str] | None, condition: Filter | None) -> Iterable[str]:
    """The ids to delete; none where a filter says which.

    Raises:
        ValueError: neither or both were given.
    """
    if (ids is None) == (condition is None):
        raise ValueError("give either ids or filter=")
    return ids or ()


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


def _vector(name: str, values: ArrayLike | Embedding | None) -> model_pb2.Vector:
    plain = values.vector if isinstance(values, Embedding) else values
    expected = "expected numbers of shape [dimension], or a fovea.Embedding"
    try:
        numbers = np.asarray(plain, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {shown(plain)}; {expected}") from None
    if numbers.ndim != 1:
        raise ValueError(f"{name} is {shown(plain)}, of shape {list(numbers.shape)}; {expected}")
    return model_pb2.Vector(values=numbers.tolist())
