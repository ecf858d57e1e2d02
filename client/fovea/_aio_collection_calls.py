# ruff: noqa: ASYNC109 - as in aio.py
"""Calls on whole collections, for asyncio; see `_collection_calls.py`."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fovea import _collections
from fovea._aio_caller import AsyncCaller
from fovea._batches import Limits
from fovea.errors import AlreadyExists
from fovea.types import AttributeType, Collection, ReembedProgress, Snapshot
from fovea.v1 import retrieval_pb2, retrieval_pb2_grpc


class AsyncCollectionCalls:
    """A part of the client, which sets these."""

    _caller: AsyncCaller
    _limits: Limits
    _retrieval: retrieval_pb2_grpc.RetrievalServiceStub

    async def create_collection(
        self,
        name: str,
        *,
        model: str | None = None,
        version: str | None = None,
        metric: str | None = None,
        dimension: int | None = None,
        fingerprint: str | None = None,
        attributes: Mapping[str, AttributeType] | None = None,
        storage: str | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> Collection:
        """Make an empty collection."""
        stated = _collections.Stated(model, version, metric, dimension, fingerprint, attributes, storage)
        request = stated.request(name)
        try:
            reply = await self._caller.call(self._retrieval.CreateCollection, request, timeout)
        except AlreadyExists:
            if not exist_ok:
                raise
            there = await self.collection(name, timeout=timeout)
            stated.check(there)
            return there
        return _collections.read_collection(reply.collection)

    async def collections(self, *, timeout: float | None = None) -> list[Collection]:
        """All collections."""
        reply = await self._caller.call(
            self._retrieval.ListCollections, retrieval_pb2.ListCollectionsRequest(), timeout
        )
        return [_collections.read_collection(collection) for collection in reply.collections]

    async def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """One collection."""
        request = retrieval_pb2.GetCollectionRequest(collection=name)
        return _collections.read_collection(
            (await self._caller.call(self._retrieval.GetCollection, request, timeout)).collection
        )

    async def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Drop a collection and all that is in it."""
        request = retrieval_pb2.DropCollectionRequest(collection=name)
        await self._caller.call(self._retrieval.DropCollection, request, timeout)

    async def flush(self, collection: str, *, timeout: float | None = math.inf) -> None:
        """Wait until everything derived from the items is up to date."""
        request = retrieval_pb2.FlushRequest(collection=collection)
        await self._caller.call(self._retrieval.Flush, request, timeout)

    async def snapshot(
        self, collection: str, name: str | None = None, *, timeout: float | None = math.inf
    ) -> Snapshot:
        """Write a collection of one moment to a file in the server's snapshot folder."""
        request = retrieval_pb2.SnapshotRequest(collection=collection, name=name or "")
        return _collections.read_snapshot(
            (await self._caller.call(self._retrieval.Snapshot, request, timeout)).snapshot
        )

    async def restore(
        self, name: str, collection: str | None = None, *, timeout: float | None = math.inf
    ) -> Collection:
        """Make a new collection of a snapshot; if that fails there is none."""
        request = retrieval_pb2.RestoreRequest(name=name, collection=collection or "")
        return _collections.read_collection(
            (await self._caller.call(self._retrieval.Restore, request, timeout)).collection
        )

    async def snapshots(self, *, timeout: float | None = None) -> list[Snapshot]:
        """The snapshots that the server has, by name."""
        request = retrieval_pb2.ListSnapshotsRequest()
        reply = await self._caller.call(self._retrieval.ListSnapshots, request, timeout)
        return [_collections.read_snapshot(snapshot) for snapshot in reply.snapshots]

    async def reembed(
        self,
        collection: str,
        *,
        model: str | None = None,
        version: str | None = None,
        skip_broken: bool = False,
        timeout: float | None = math.inf,
    ) -> AsyncGenerator[ReembedProgress, None]:
        """Make all vectors anew with another model, from the files that the items' attribute `uri` names."""
        request = _collections.reembed_request(collection, model, version, skip_broken)
        async with aclosing(self._caller.replies(self._retrieval.Reembed, request, timeout)) as replies:
            async for reply in replies:
                yield _collections.read_progress(reply)
