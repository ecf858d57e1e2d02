"""Calls on whole collections, of the client for threads."""

import math
from collections.abc import Generator, Mapping
from contextlib import closing

from fovea import _collections
from fovea._batches import Limits
from fovea._caller import Caller
from fovea.errors import AlreadyExists
from fovea.types import AttributeType, Collection, ReembedProgress, Snapshot
from fovea.v1 import retrieval_pb2, retrieval_pb2_grpc


class CollectionCalls:
    """A part of the client, which sets these."""

    _caller: Caller
    _limits: Limits
    _retrieval: retrieval_pb2_grpc.RetrievalServiceStub

    def create_collection(
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
        """Make an empty collection.

        Args:
            name: 1 to 128 letters, digits, '_', '-' and '.', starting with a letter or digit.
            model: makes its vectors; default: the server's default model.
            version: of the model.
            metric: "cosine", "inner_product" or "l2". Default: "cosine".
            dimension: for vectors that the caller brings, instead of a model.
            fingerprint: with `dimension`: what makes the vectors; others are then refused.
            attributes: name → "string", "int", "float" or "bool": those that filters and groups go by.
                Others are stored and returned, no more.
            storage: "float32", or "float16", which takes half the room. Default: "float32".
            exist_ok: give the collection of that name, if there is one; what is stated here must hold for it,
                and it may declare more attributes.
            timeout: in seconds.

        Raises:
            AlreadyExists: the name is taken, and `exist_ok` is false.
            FailedPrecondition: with `exist_ok`: the collection that is there is another one than stated.
        """
        stated = _collections.Stated(model, version, metric, dimension, fingerprint, attributes, storage)
        request = stated.request(name)
        try:
            reply = self._caller.call(self._retrieval.CreateCollection, request, timeout)
        except AlreadyExists:
            if not exist_ok:
                raise
            there = self.collection(name, timeout=timeout)
            stated.check(there)
            return there
        return _collections.read_collection(reply.collection)

    def collections(self, *, timeout: float | None = None) -> list[Collection]:
        """All collections."""
        reply = self._caller.call(
            self._retrieval.ListCollections, retrieval_pb2.ListCollectionsRequest(), timeout
        )
        return [_collections.read_collection(collection) for collection in reply.collections]

    def collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """One collection.

        Raises:
            NotFound: lists the collections there are.
        """
        request = retrieval_pb2.GetCollectionRequest(collection=name)
        return _collections.read_collection(
            self._caller.call(self._retrieval.GetCollection, request, timeout).collection
        )

    def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Drop a collection and all that is in it.

        Raises:
            NotFound: lists the collections there are.
        """
        request = retrieval_pb2.DropCollectionRequest(collection=name)
        self._caller.call(self._retrieval.DropCollection, request, timeout)

    def flush(self, collection: str, *, timeout: float | None = math.inf) -> None:
        """Wait until everything derived from the items is up to date, and searches are as fast as they get.

        Items are durable and found without it. Like the calls below it takes as long as the server lets it,
        unless `timeout` says otherwise.
        """
        request = retrieval_pb2.FlushRequest(collection=collection)
        self._caller.call(self._retrieval.Flush, request, timeout)

    def snapshot(
        self, collection: str, name: str | None = None, *, timeout: float | None = math.inf
    ) -> Snapshot:
        """Write a collection of one moment to a file in the server's snapshot folder.

        Args:
            collection: which.
            name: of the file, with the rules of a collection's. Default: the collection's and the time.
            timeout: in seconds.

        Raises:
            AlreadyExists: the name is taken.
            FailedPrecondition: the server has no such folder.
        """
        request = retrieval_pb2.SnapshotRequest(collection=collection, name=name or "")
        return _collections.read_snapshot(
            self._caller.call(self._retrieval.Snapshot, request, timeout).snapshot
        )

    def restore(
        self, name: str, collection: str | None = None, *, timeout: float | None = math.inf
    ) -> Collection:
        """Make a new collection of a snapshot; if that fails there is none.

        Args:
            name: the snapshot's.
            collection: the new one's name. Default: that of the one it was taken of.
            timeout: in seconds.

        Raises:
            NotFound: lists the snapshots there are.
            AlreadyExists: the collection's name is taken.
            FailedPrecondition: the file can't be used, or the server has no folder of snapshots.
        """
        request = retrieval_pb2.RestoreRequest(name=name, collection=collection or "")
        return _collections.read_collection(
            self._caller.call(self._retrieval.Restore, request, timeout).collection
        )

    def snapshots(self, *, timeout: float | None = None) -> list[Snapshot]:
        """The snapshots that the server has, by name."""
        request = retrieval_pb2.ListSnapshotsRequest()
        reply = self._caller.call(self._retrieval.ListSnapshots, request, timeout)
        return [_collections.read_snapshot(snapshot) for snapshot in reply.snapshots]

    def reembed(
        self,
        collection: str,
        *,
        model: str | None = None,
        version: str | None = None,
        skip_broken: bool = False,
        timeout: float | None = math.inf,
    ) -> Generator[ReembedProgress, None, None]:
        """Make all vectors anew with another model, from the files that the items' attribute `uri` names.

        The last progress has the new collection. Until then the old one answers, and what is written
        meanwhile isn't lost; if the call ends before, it is as it was. Nothing begins before the first
        progress is asked for; leaving the iterator ends the call.

        Args:
            collection: which; it declares `uri`, a string.
            model: default: the server's default model.
            version: default: the loaded one.
            skip_broken: leave out the items whose image can't be used, instead of ending with the first.
            timeout: in seconds, of all of it.

        Raises:
            FailedPrecondition: the server opens no image files, or the collection doesn't declare `uri`.
            InvalidArgument: an image can't be used; names the item.
        """
        request = _collections.reembed_request(collection, model, version, skip_broken)
        with closing(self._caller.replies(self._retrieval.Reembed, request, timeout)) as replies:
            for reply in replies:
                yield _collections.read_progress(reply)
