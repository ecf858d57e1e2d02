# ruff: noqa: ASYNC109 - as in aio.py
"""Calls on items of collections, for asyncio; see `_item_calls.py`."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Unpack

from numpy.typing import ArrayLike

from fovea import _retrieval
from fovea._aio_caller import AsyncCaller
from fovea._aio_stream import each
from fovea._batches import Limits
from fovea._checks import many
from fovea._filters import filter_message
from fovea.errors import FoveaError
from fovea.filters import Filter
from fovea.options import SearchOptions
from fovea.types import Embedding, ImageSource, Item, Neighbor, Query, StoredItem, UpsertResult
from fovea.v1 import retrieval_pb2, retrieval_pb2_grpc


class AsyncItemCalls:
    """A part of the client, which sets these."""

    _caller: AsyncCaller
    _limits: Limits
    _retrieval: retrieval_pb2_grpc.RetrievalServiceStub

    async def upsert(
        self,
        collection: str,
        items: Iterable[Item],
        *,
        fingerprint: str | None = None,
        timeout: float | None = None,
    ) -> list[UpsertResult]:
        """Write items, replacing those of the same id; one result per item."""
        listed = _retrieval.items_of(items)
        fingerprint = _retrieval.common_fingerprint(fingerprint, listed)
        operation = _retrieval.Upsert(self._limits, collection, fingerprint)
        outcomes = await self._caller.many(self._retrieval.Upsert, operation, listed, timeout)
        return [UpsertResult(item.id, error) for item, error in zip(listed, outcomes, strict=True)]

    def upsert_stream(
        self,
        collection: str,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        fingerprint: str | None = None,
        batch_size: int = 32,
        window: int = 4,
        timeout: float | None = None,
    ) -> AsyncGenerator[UpsertResult, None]:
        """Write any number of items, in their order, as they come; `items` may be async.

        Leaving the iterator ends the call; `aclose()` does so at once.
        """
        operation = _retrieval.Upsert(self._limits.at_most(batch_size), collection, fingerprint or "")
        ids: deque[str] = deque()
        many("items", items)

        async def noted() -> AsyncGenerator[Item, None]:
            async with aclosing(each(items)) as taken:
                async for item in taken:
                    ids.append(_retrieval.item_of(item).id)
                    yield item

        outcomes = self._caller.stream(self._retrieval.UpsertStream, operation, noted(), window, timeout)

        async def results() -> AsyncGenerator[UpsertResult, None]:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield UpsertResult(ids.popleft(), outcome)

        return results()

    async def delete(
        self,
        collection: str,
        ids: Iterable[str] | None = None,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        timeout: float | None = None,
    ) -> int:
        """Delete items by id, or those that a filter keeps; returns how many were there."""
        deleted = 0
        for chunk in _retrieval.chunks(_retrieval.which(ids, filter), self._limits.max_parts):
            request = retrieval_pb2.DeleteRequest(collection=collection, ids=chunk)
            deleted += (await self._caller.call(self._retrieval.Delete, request, timeout)).deleted
        if filter is not None:
            request = retrieval_pb2.DeleteRequest(collection=collection, filter=filter_message(filter))
            deleted = int((await self._caller.call(self._retrieval.Delete, request, timeout)).deleted)
        return deleted

    async def get(
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
            items += _retrieval.read_items(await self._caller.call(self._retrieval.Get, request, timeout))
        return items

    async def count(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        timeout: float | None = None,
    ) -> int:
        """How many items the collection has, or of them a filter keeps."""
        request = retrieval_pb2.CountRequest(collection=collection, filter=filter_message(filter))
        return int((await self._caller.call(self._retrieval.Count, request, timeout)).count)

    async def scan(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 - the contract's own word
        include_vectors: bool = False,
        page_size: int = 1000,
        timeout: float | None = None,
    ) -> AsyncGenerator[StoredItem, None]:
        """All items in the order of their ids, or those that a filter keeps; read a page at a time."""
        request = _retrieval.scan_request(collection, filter, include_vectors, page_size)
        while True:
            reply = await self._caller.call(self._retrieval.Scan, request, timeout)
            items = _retrieval.read_items(reply)
            for item in items:
                yield item
            if reply.last or not items:
                return
            request.after = items[-1].id

    async def search(
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
        """The nearest items, nearest first, to an image, a vector or a stored item (which is left out)."""
        query = Query(image=image, vector=vector, id=id)
        fingerprint = _retrieval.common_fingerprint(fingerprint, [query])
        operation = _retrieval.Search(self._limits, collection, top_k, fingerprint, options)
        return await self._caller.one(self._retrieval.Search, operation, query, timeout)

    async def search_batch(
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
        return await self._caller.many(self._retrieval.Search, operation, listed, timeout)
