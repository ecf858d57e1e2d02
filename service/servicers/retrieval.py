"""fovea.v1.RetrievalService: each call's request → the gallery → its reply."""

import asyncio
from contextlib import aclosing
from typing import Any

import grpc.aio
from fovea.v1 import retrieval_pb2 as pb
from fovea.v1 import retrieval_pb2_grpc

from service.config import Config
from service.errors import InvalidRequest, Unavailable
from service.gallery.gallery import Gallery
from service.gallery.reembedding import Progress
from service.gallery.searches import Search
from service.interceptors import deadline_in
from service.retrieval.index import CollectionInfo
from service.retrieval.replies import check_reply_size
from service.servicers.filters import filter_of
from service.servicers.messages import check_count
from service.servicers.retrieval_messages import (
    collection_message,
    expansion_of,
    item_message,
    model_message,
    new_item,
    new_spec,
    query_of,
    search_options,
    snapshot_message,
    upsert_response,
    upsert_result,
    write_result,
)
from service.servicers.upsert_stream import UpsertStream

_DEFAULT_TOP_K = 10
_DEFAULT_PAGE_SIZE = 1000
_MAX_PAGE_SIZE = 10_000
_Context = grpc.aio.ServicerContext[Any, Any]


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Keeps collections of images and finds the nearest."""

    def __init__(self, gallery: Gallery, config: Config, draining: asyncio.Event) -> None:
        self._gallery, self._config, self._draining = gallery, config, draining
        self._timeout_s = config.default_timeout_ms / 1000

    def _deadline(self, context: _Context) -> float:
        return deadline_in(context.time_remaining(), self._timeout_s)

    def _upkeep_deadline(self, context: _Context) -> float:
        return deadline_in(context.time_remaining(), self._config.upkeep_timeout_s)

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: _Context
    ) -> pb.CreateCollectionResponse:
        """Make an empty collection."""
        deadline = self._deadline(context)
        spec = new_spec(request)
        if request.WhichOneof("origin") == "external":
            info = await self._gallery.collections.create(spec, deadline)
        else:
            info = await self._gallery.collections.create_for_model(
                spec, request.model.model, request.model.version, deadline
            )
        return pb.CreateCollectionResponse(collection=self._collection(info))

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: _Context
    ) -> pb.GetCollectionResponse:
        """Describe one."""
        info = await self._gallery.collections.describe(request.collection, self._deadline(context))
        return pb.GetCollectionResponse(collection=self._collection(info))

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: _Context
    ) -> pb.ListCollectionsResponse:
        """Describe all."""
        infos = await self._gallery.collections.list_all(self._deadline(context))
        return pb.ListCollectionsResponse(collections=[self._collection(info) for info in infos])

    async def DropCollection(
        self, request: pb.DropCollectionRequest, context: _Context
    ) -> pb.DropCollectionResponse:
        """Remove one and all that is in it."""
        await self._gallery.collections.drop(request.collection, self._deadline(context))
        return pb.DropCollectionResponse()

    async def Upsert(self, request: pb.UpsertRequest, context: _Context) -> pb.UpsertResponse:
        """Write items."""
        check_count("items", request.items, self._config)
        written = await self._gallery.items.upsert(
            request.collection,
            [new_item(item) for item in request.items],
            request.fingerprint,
            self._deadline(context),
        )
        return upsert_response([item.id for item in request.items], written)

    async def UpsertStream(  # type: ignore[override] # it reads and writes through the context
        self, request_iterator: Any, context: _Context
    ) -> None:
        """Write items as they come."""
        await UpsertStream(self._gallery.items, self._config, self._draining).run(context)

    async def Delete(self, request: pb.DeleteRequest, context: _Context) -> pb.DeleteResponse:
        """Remove items, by id or by a filter."""
        deadline, condition = self._deadline(context), filter_of(request)
        if condition is None:
            check_count("ids", request.ids, self._config)
            deleted = await self._gallery.items.delete(request.collection, list(request.ids), deadline)
        elif request.ids:
            raise InvalidRequest(
                f"the request has {len(request.ids)} ids and a filter; expected either of them"
            )
        else:
            deleted = await self._gallery.items.delete_matching(request.collection, condition, deadline)
        return pb.DeleteResponse(deleted=deleted)

    async def Get(self, request: pb.GetRequest, context: _Context) -> pb.GetResponse:
        """Read items by id."""
        deadline = self._deadline(context)
        check_count("ids", request.ids, self._config)
        items = await self._gallery.items.get(
            request.collection, list(request.ids), deadline, include_vectors=request.include_vectors
        )
        response = pb.GetResponse(
            items=[item_message(item, include_vector=request.include_vectors) for item in items]
        )
        check_reply_size(response.ByteSize(), self._config.max_message_bytes, "ask for fewer ids")
        return response

    async def Count(self, request: pb.CountRequest, context: _Context) -> pb.CountResponse:
        """How many items there are."""
        deadline = self._deadline(context)
        count = await self._gallery.items.count(request.collection, filter_of(request), deadline)
        return pb.CountResponse(count=count)

    async def Scan(self, request: pb.ScanRequest, context: _Context) -> pb.ScanResponse:
        """A page of the items."""
        deadline = self._deadline(context)
        page_size = request.page_size or _DEFAULT_PAGE_SIZE
        if page_size > _MAX_PAGE_SIZE:
            raise InvalidRequest(f"page_size is {page_size}; expected at most {_MAX_PAGE_SIZE:,}")
        items, more = await self._gallery.items.scan(
            request.collection,
            request.after,
            page_size,
            filter_of(request),
            deadline,
            include_vectors=request.include_vectors,
        )
        response = pb.ScanResponse(
            items=[item_message(item, include_vector=request.include_vectors) for item in items],
            last=not more,
        )
        # What is stored may grow on the wire.
        while len(response.items) > 1 and response.ByteSize() > self._config.max_message_bytes:
            del response.items[len(response.items) // 2 :]
            response.last = False
        check_reply_size(response.ByteSize(), self._config.max_message_bytes, "leave the vectors out")
        return response

    async def Search(self, request: pb.SearchRequest, context: _Context) -> pb.SearchResponse:
        """Find the nearest."""
        check_count("queries", request.queries, self._config)
        wanted = Search(
            request.collection,
            [query_of(query) for query in request.queries],
            request.top_k or _DEFAULT_TOP_K,
            search_options(request),
            expansion_of(request),
            request.fingerprint,
        )
        found = await self._gallery.searches.search(wanted, self._deadline(context))
        response = pb.SearchResponse(model=model_message(found.model))
        for answer in found.answers:
            write_result(response.results.add(), answer)
        # Exact: the gallery's own check, before any of this is made, goes by what is stored.
        check_reply_size(
            response.ByteSize(),
            self._config.max_message_bytes,
            "ask for fewer neighbours, or send fewer queries at a time",
        )
        return response

    async def Flush(self, request: pb.FlushRequest, context: _Context) -> pb.FlushResponse:
        """Wait until all that is derived is up to date."""
        await self._gallery.collections.flush(request.collection, self._upkeep_deadline(context))
        return pb.FlushResponse()

    async def Snapshot(self, request: pb.SnapshotRequest, context: _Context) -> pb.SnapshotResponse:
        """Write a collection to a file."""
        deadline = self._upkeep_deadline(context)
        snapshot = await self._gallery.snapshots.write(request.collection, request.name, deadline)
        return pb.SnapshotResponse(snapshot=snapshot_message(snapshot))

    async def Restore(self, request: pb.RestoreRequest, context: _Context) -> pb.RestoreResponse:
        """Make a collection of a file."""
        deadline = self._upkeep_deadline(context)
        info = await self._gallery.snapshots.restore(request.name, request.collection, deadline)
        return pb.RestoreResponse(collection=self._collection(info))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: _Context
    ) -> pb.ListSnapshotsResponse:
        """The files there are."""
        snapshots = await self._gallery.snapshots.list_all(self._deadline(context))
        return pb.ListSnapshotsResponse(snapshots=[snapshot_message(snapshot) for snapshot in snapshots])

    async def Reembed(  # type: ignore[override] # it writes through the context
        self, request: pb.ReembedRequest, context: _Context
    ) -> None:
        """Make a collection's vectors anew."""
        work = asyncio.create_task(self._reembed(request, context))
        drain = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait([work, drain], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Unavailable("the server is draining; the collection is as it was: call again later")
            work.result()
        finally:
            work.cancel()
            drain.cancel()
            await asyncio.gather(work, drain, return_exceptions=True)

    async def _reembed(self, request: pb.ReembedRequest, context: _Context) -> None:
        progress = self._gallery.reembedding.run(
            request.collection,
            request.model.model,
            request.model.version,
            self._upkeep_deadline(context),
            skip_broken=request.skip_broken,
        )
        async with aclosing(progress) as steps:
            async for step in steps:
                await context.write(self._step(step))

    def _step(self, step: Progress) -> pb.ReembedResponse:
        return pb.ReembedResponse(
            done=step.done,
            total=step.total,
            skipped=[upsert_result(name, error) for name, error in step.skipped],
            collection=self._collection(step.collection) if step.collection else None,
        )

    def _collection(self, info: CollectionInfo) -> pb.Collection:
        return collection_message(info, self._gallery.collections.model_of(info.spec))
