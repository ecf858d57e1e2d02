"""The embedded engine: one machine, nothing to set up; SQLite keeps everything, FAISS finds it.

All vectors and attributes are in memory as well, so reading needs no disk. A write goes through three
steps under one lock: prepared in memory where nobody sees it, committed by SQLite, published in memory by
one assignment. So a write that fails changes nothing, and memory and disk agree on the order of writes.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import CollectionExists, CollectionNotFound, IndexUnusable, Unavailable, listed, shorten
from service.retrieval import flat, lock, record
from service.retrieval.checks import check_spec, check_top_k, pack_items, pack_queries
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item, Neighbor
from service.retrieval.replies import attributes_of
from service.retrieval.segments import MAX_SEGMENT_ROWS, Segments

# Of a float32.
_NUMBER_BYTES = 4


@dataclass(frozen=True)
class _Collection:
    key: int
    spec: CollectionSpec
    segments: Segments


class EmbeddedIndex(Index):
    """An index in a folder of its own, for one process; searches wait for nobody."""

    def __init__(self, folder: Path, *, max_segment_rows: int = MAX_SEGMENT_ROWS) -> None:
        """Open the folder and read all of it into memory; makes it where it is missing.

        Args:
            folder: holds the database and the lock; on a local file system.
            max_segment_rows: see `Segments`.

        Raises:
            IndexLocked: another process has it open; names the pid.
            IndexUnusable: the folder can't be written to, or its database is broken or too new.
        """
        self._max_segment_rows = max_segment_rows
        self._collections: dict[str, _Collection] = {}
        self._closed = False
        self._writing = threading.Lock()
        self._lock = lock.FolderLock(folder)
        try:
            self._record = record.Record(folder / record.FILE_NAME)
            try:
                self._load()
            except BaseException:
                with suppress(IndexUnusable):  # the first error is the one to tell
                    self._record.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        for key, spec in self._record.collections():
            collection = self._empty(key, spec)
            for batch, sequences in self._record.read(key, spec.dimension):
                collection.segments.publish(collection.segments.prepare(batch, sequences=sequences))
            self._collections[spec.name] = collection

    def create(self, spec: CollectionSpec) -> None:
        """See `Index.create`."""
        check_spec(spec)
        with self._writing:
            self._check_open()
            if spec.name in self._collections:
                raise CollectionExists(
                    f"collection {shorten(spec.name)} exists already; drop it, or choose another name"
                )
            self._collections[spec.name] = self._empty(self._record.create(spec), spec)

    def drop(self, collection: str) -> None:
        """See `Index.drop`."""
        with self._writing:
            self._record.drop(self._find(collection).key)
            del self._collections[collection]

    def describe(self, collection: str) -> CollectionInfo:
        """See `Index.describe`."""
        found = self._find(collection)
        return CollectionInfo(found.spec, len(found.segments))

    def list_collections(self) -> list[CollectionInfo]:
        """See `Index.list_collections`."""
        self._check_open()
        collections = sorted(self._collections.copy().items())
        return [CollectionInfo(found.spec, len(found.segments)) for _, found in collections]

    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        """See `Index.upsert`."""
        spec = self._find(collection).spec
        batch = pack_items(spec, items)
        with self._writing:
            found = self._find(collection)
            if found.spec != spec:  # dropped and made anew in between
                batch = pack_items(found.spec, items)
            if batch.ids:
                sequences = self._record.next_sequences(len(batch.ids))
                change = found.segments.prepare(batch, sequences=sequences)
                self._record.write(found.key, batch)
                found.segments.publish(change)

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """See `Index.delete`."""
        with self._writing:
            found = self._find(collection)
            there = [name for name in dict.fromkeys(ids) if name in found.segments]
            if there:
                change = found.segments.prepare(removed=there)
                self._record.delete(found.key, there)
                found.segments.publish(change)
            return len(there)

    def get(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        max_reply_bytes: int | None = None,
    ) -> list[Item]:
        """See `Index.get`."""
        found = self._find(collection)
        places = found.segments.read(ids)
        used = slice(None) if include_vectors else slice(0)
        bytes_each = _NUMBER_BYTES * found.spec.dimension if include_vectors else 0
        remedy = "ask for fewer ids" + (", or leave the vectors out" if include_vectors else "")
        attributes = attributes_of(places, bytes_each, max_reply_bytes, remedy)
        return [
            Item(segment.ids[row], segment.vectors[row, used].copy(), values)
            for (segment, row), values in zip(places, attributes, strict=True)
        ]

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Index.vectors`."""
        places = self._find(collection).segments.read(dict.fromkeys(ids))
        return {segment.ids[row]: segment.vectors[row].copy() for segment, row in places}

    def count(self, collection: str) -> int:
        """See `Index.count`."""
        return len(self._find(collection).segments)

    def search(
        self,
        collection: str,
        queries: NDArray[np.float32],
        top_k: int,
        *,
        excluded_ids: Sequence[str | None] | None = None,
        max_reply_bytes: int | None = None,
    ) -> list[list[Neighbor]]:
        """See `Index.search`. Equally near items come in the order in which they were written."""
        found = self._find(collection)
        check_top_k(top_k)
        vectors = pack_queries(found.spec, queries)
        excluded = excluded_ids or [None] * len(vectors)
        wanted = top_k + any(name is not None for name in excluded)
        hits_of_queries = [
            [hit for hit in hits if hit.segment.ids[hit.row] != name][:top_k]
            for hits, name in zip(
                flat.search(found.segments.view(), found.spec.metric, vectors, wanted), excluded, strict=True
            )
        ]
        attributes = iter(
            attributes_of(
                [(hit.segment, hit.row) for hits in hits_of_queries for hit in hits],
                _NUMBER_BYTES,
                max_reply_bytes,
                "ask for fewer neighbours, or send fewer queries at a time",
            )
        )
        return [
            [Neighbor(hit.segment.ids[hit.row], hit.score, next(attributes)) for hit in hits]
            for hits in hits_of_queries
        ]

    def close(self) -> None:
        """See `Index.close`; a second call does nothing."""
        with self._writing:
            if not self._closed:
                self._closed = True
                self._collections = {}
                try:
                    self._record.close()
                finally:
                    self._lock.release()

    def _empty(self, key: int, spec: CollectionSpec) -> _Collection:
        return _Collection(key, spec, Segments(spec.dimension, self._max_segment_rows))

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the index is closed")

    def _find(self, name: str) -> _Collection:
        self._check_open()
        found = self._collections.get(name)
        if found is None:
            there = listed(sorted(self._collections.copy()))
            raise CollectionNotFound(f"no collection {shorten(name)}; there are: {there}")
        return found
