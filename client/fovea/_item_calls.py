"""Calls on items of collections, of the client for threads."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Unpack

from numpy.typing import ArrayLike

from fovea import _retrieval
from fovea._batches import Limits
from fovea._caller import Caller
from fovea._checks import many
from fovea._filters import filter_message
from fovea.errors import FoveaError
from fovea.filters import Filter
from fovea.options import SearchOptions
from fovea.types import Embedding, ImageSource, Item, Neighbor, Query, StoredItem, UpsertResult
from fovea.v1 import retrieval_pb2, retrieval_pb2_grpc


class ItemCalls:
    """A part of the client, which sets these."""

    _caller: Caller
    _limits: Limits
    _retrieval: retrieval_pb2_grpc.RetrievalServiceStub

    def upsert(
        self,
        collection: str,
        items: Iterable[Item],
        *,
        fingerprint: str | None = None,
        timeout: float | None = None,
    ) -> list[UpsertResult]:
        """Write items, replacing those of the same id.

        Args:
            collection: where.
            items: images or vectors, with attributes.
            fingerprint: what made the vectors; embeddings bring their own.
            timeout: in seconds.

        Returns:
            One per item, in their order: written, or why not. Where a later one of several requests
            fails, its error stands with each of its items, which may have been written all the same
            (writing them again does no harm), and with those after them, which were not sent.

        Raises:
            FailedPrecondition: the collection's vectors come from another model.
        """
        listed = _retrieval.items_of(items)
        fingerprint = _retrieval.common_fingerprint(fingerprint, listed)
        operation = _retrieval.Upsert(self._limits, collection, fingerprint)
        outcomes = self._caller.many(self._retrieval.Upsert, operation, listed, timeout)
        return [UpsertResult(item.id, error) for item, error in zip(listed, outcomes, strict=True)]

    def upsert_stream(
        self,
        collection: str,
        items: Iterable[Item],
        *,
        fingerprint: str | None = None,
        batch_size: int = 32,
        window: int = 4,
        timeout: float | None = None,
    ) -> Generator[UpsertResult, None, None]:
        """Write any number of items, in their order, as they come.

        Args:
            collection: where.
            items: read in another thread, at most `batch_size` × `window` ahead of the results taken.
            fingerprint: what made the vectors; embeddings bring their own.
            batch_size: items per message.
            window: messages on the way at once.
            timeout: seconds for each message from when the server reads it; the stream has no end.

        Returns:
            One per item, in their order. The iterator may be left at any time (`close()` does so at once);
            items whose result wasn't taken may have been written all the same.
        """
        operation = _retrieval.Upsert(self._limits.at_most(batch_size), collection, fingerprint or "")
        ids: deque[str] = deque()
        many("items", items)

        def noted() -> Iterator[Item]:
            for item in items:
                ids.append(_retrieval.item_of(item).id)
                yield item

        outcomes = self._caller.stream(self._retrieval.UpsertStream, operation, noted(), window, timeout)

        def results() -> Generator[UpsertResult, None, None]:
            with closing(outcomes):
                for outcome in outcomes:
                    yield UpsertResult(ids.popleft(), outcome)

        return results()

    def delete(
        self,
        collection: str,
        ids: Iterable[str] | None = None,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        timeout: float | None = None,
    ) -> int:
        """Delete items by id, or those that a filter keeps; returns how many were there.

        Many ids are split into requests; when one fails, those before it have been carried out.

        Raises:
            InvalidArgument: a filter by an attribute that the collection doesn't declare, or by a value of
                another type.
        """
        deleted = 0
        for chunk in _retrieval.chunks(_retrieval.which(ids, filter), self._limits.max_parts):
            request = retrieval_pb2.DeleteRequest(collection=collection, ids=chunk)
            deleted += self._caller.call(self._retrieval.Delete, request, timeout).deleted
        if filter is not None:
            request = retrieval_pb2.DeleteRequest(collection=collection, filter=filter_message(filter))
            deleted = int(self._caller.call(self._retrieval.Delete, request, timeout).deleted)
        return deleted

    def get(
        self,
        collection: str,
        ids: Iterable[str],
        *,
        include_vectors: bool = False,
        timeout: float | None = None,
    ) -> list[StoredItem]:
        """Read items by id: those that are there, in the order asked for."""
        items: list[StoredItem] = []
        for chunk in _retrieval.chunks(ids, self._limits.max_parts):
            request = retrieval_pb2.GetRequest(
                collection=collection, ids=chunk, include_vectors=include_vectors
            )
            items += _retrieval.read_items(self._caller.call(self._retrieval.Get, request, timeout))
        return items

    def count(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        timeout: float | None = None,
    ) -> int:
        """How many items the collection has, or of them a filter keeps."""
        request = retrieval_pb2.CountRequest(collection=collection, filter=filter_message(filter))
        return int(self._caller.call(self._retrieval.Count, request, timeout).count)

    def scan(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        include_vectors: bool = False,
        page_size: int = 1000,
        timeout: float | None = None,
    ) -> Iterator[StoredItem]:
        """All items in the order of their ids, or those that a filter keeps; read a page at a time.

        Args:
            collection: where.
            filter: which.
            include_vectors: else they are None.
            page_size: items per request; the server sends fewer where they are large.
            timeout: in seconds, of each request.
        """
        request = _retrieval.scan_request(collection, filter, include_vectors, page_size)
        while True:
            reply = self._caller.call(self._retrieval.Scan, request, timeout)
            items = _retrieval.read_items(reply)
            yield from items
            if reply.last or not items:
                return
            request.after = items[-1].id

    def search(
        self,
        collection: str,
        *,
        image: ImageSource | None = None,
        vector: ArrayLike | Embedding | None = None,
        id: str | None = None,  # noqa: A002 - the contract's own word
        top_k: int = 10,
        fingerprint: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Neighbor]:
        """The nearest items, nearest first, to an image, a vector or a stored item (which is left out).

        Args:
            collection: where.
            image: embedded by the collection's model.
            vector: [dimension], or an Embedding.
            id: a stored item's.
            top_k: how many, at least 1.
            fingerprint: what made the vector; an Embedding brings its own.
            timeout: in seconds.
            **options: `filter`, `min_score`, `group_by`, `offset`, `recall`, `expansion`: see
                `fovea.SearchOptions`.

        Raises:
            InvalidImage: the image can't be used.
            InvalidArgument: the vector or an option can't be used.
            NotFound: no such collection or item.
            FailedPrecondition: the vector comes from another model.
        """
        query = Query(image=image, vector=vector, id=id)
        fingerprint = _retrieval.common_fingerprint(fingerprint, [query])
        operation = _retrieval.Search(self._limits, collection, top_k, fingerprint, options)
        return self._caller.one(self._retrieval.Search, operation, query, timeout)

    def search_batch(
        self,
        collection: str,
        queries: Iterable[Query],
        *,
        top_k: int = 10,
        fingerprint: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[list[Neighbor] | FoveaError]:
        """`search` for each query; a FoveaError in the place of one that failed."""
        listed = _retrieval.queries_of(queries)
        fingerprint = _retrieval.common_fingerprint(fingerprint, listed)
        operation = _retrieval.Search(self._limits, collection, top_k, fingerprint, options)
        return self._caller.many(self._retrieval.Search, operation, listed, timeout)
