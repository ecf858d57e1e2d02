"""The embedded engine: one machine, nothing to set up; SQLite keeps everything, FAISS finds it.

All vectors and attributes are in memory as well, so reading needs no disk. A write goes through three
steps under one lock: prepared in memory where nobody sees it, committed by SQLite, published in memory by
one assignment. So a write that fails changes nothing, and memory and disk agree on the order of writes.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import IndexUnusable, InvalidRequest, Unavailable, shorten
from service.retrieval import loading, lock, record
from service.retrieval.checks import check_spec, pack_items
from service.retrieval.collection import Collection
from service.retrieval.collection_names import not_found, taken
from service.retrieval.filters import Filter
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item, Neighbor, SearchOptions
from service.retrieval.keeper import Keeper, Work
from service.retrieval.segment_files import remove_others
from service.retrieval.segments import MAX_SEGMENT_ROWS, Segments
from service.retrieval.stopping import Stopped, deadline_in
from service.retrieval.sweeper import Sweeper
from service.retrieval.upkeep import MIN_TIER_ROWS_ALLOWED, Upkeep, save_all

# Beside the record: files of what memory holds.
DERIVED_FOLDER = "derived"
# With fewer items everything is compared: that is as quick, and exact.
MIN_TIER_ROWS = 5_000
_CLOSE_TIMEOUT_S = 20.0


class EmbeddedIndex(Index):
    """An index in a folder of its own, for one process; searches wait for nobody."""

    def __init__(
        self,
        folder: Path,
        *,
        max_segment_rows: int = MAX_SEGMENT_ROWS,
        min_tier_rows: int = MIN_TIER_ROWS,
    ) -> None:
        """Open the folder and read all of it into memory; makes it where it is missing.

        Args:
            folder: holds the database and the lock; on a local file system.
            max_segment_rows: see `Segments`.
            min_tier_rows: collections of this many items and more are searched by their 1-bit tier; at least
                `MIN_TIER_ROWS_ALLOWED`.

        Raises:
            ValueError: too small a `min_tier_rows`.
            IndexLocked: another process has it open; names the pid.
            IndexUnusable: the folder can't be written to, or its database is broken or too new.
        """
        if min_tier_rows < MIN_TIER_ROWS_ALLOWED:
            raise ValueError(f"min_tier_rows is {min_tier_rows}; expected at least {MIN_TIER_ROWS_ALLOWED}")
        self._max_segment_rows, self._min_tier_rows = max_segment_rows, min_tier_rows
        self._derived = folder / DERIVED_FOLDER
        self._retired: list[Upkeep] = []
        self._collections: dict[str, Collection] = {}
        self._closed = False
        self._writing = threading.Lock()
        self._lock = lock.FolderLock(folder)
        try:
            self._record = record.Record(folder / record.FILE_NAME)
            try:
                self._load()
                self._sweeper = Sweeper(self._record, self._writing)
                self._keeper = Keeper(self._work)
            except BaseException:
                with suppress(IndexUnusable):  # the first error is the one to tell
                    self._record.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        collections = self._record.collections()
        if self._derived.exists():
            remove_others(self._derived, [key for key, _ in collections])
        for key, spec in collections:
            collection = self._empty(key, spec)
            loading.load(self._record, collection.upkeep.files, key, spec, collection.segments)
            collection.upkeep.load_tier()
            self._collections[spec.name] = collection

    def create(self, spec: CollectionSpec) -> None:
        """See `Index.create`."""
        check_spec(spec)
        with self._writing:
            self._check_open()
            if spec.name in self._collections:
                raise taken(spec.name)
            self._collections[spec.name] = self._empty(self._record.create(spec), spec)

    def drop(self, collection: str) -> None:
        """See `Index.drop`."""
        with self._writing:
            found = self._find(collection)
            self._record.drop(found.key)
            del self._collections[collection]
            self._retire(found)

    def describe(self, collection: str) -> CollectionInfo:
        """See `Index.describe`."""
        return self._find(collection).info

    def list_collections(self) -> list[CollectionInfo]:
        """See `Index.list_collections`."""
        self._check_open()
        collections = sorted(self._collections.copy().items())
        return [found.info for _, found in collections]

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
                self._record.write(found.key, found.spec, batch)
                found.segments.publish(change)
                self._keeper.wake()

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """See `Index.delete`."""
        with self._writing:
            found = self._find(collection)
            return self._remove(found, [name for name in dict.fromkeys(ids) if name in found.segments])

    def delete_matching(self, collection: str, condition: Filter) -> int:
        """See `Index.delete_matching`."""
        with self._writing:
            found = self._find(collection)
            return self._remove(found, found.matching(condition))

    def _remove(self, found: Collection, there: Sequence[str]) -> int:
        if there:
            change = found.segments.prepare(removed=there)
            self._record.delete(found.key, there)
            found.segments.publish(change)
            self._keeper.wake()
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
        return self._find(collection).get(
            ids, include_vectors=include_vectors, max_reply_bytes=max_reply_bytes
        )

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Index.vectors`."""
        return self._find(collection).vectors(ids)

    def count(self, collection: str, condition: Filter | None = None) -> int:
        """See `Index.count`."""
        return self._find(collection).count(condition)

    def scan(
        self,
        collection: str,
        *,
        after: str = "",
        limit: int = 1000,
        condition: Filter | None = None,
        include_vectors: bool = True,
        max_reply_bytes: int | None = None,
    ) -> list[Item]:
        """See `Index.scan`."""
        found = self._find(collection)
        return found.scan(
            partial(self._record.ids_after, found.key),
            after=after,
            limit=limit,
            condition=condition,
            include_vectors=include_vectors,
            max_reply_bytes=max_reply_bytes,
        )

    @contextmanager
    def items(self, collection: str) -> Iterator[Iterator[list[Item]]]:
        """See `Index.items`."""
        yield self._find(collection).items()

    def search(
        self,
        collection: str,
        queries: NDArray[np.float32],
        top_k: int,
        *,
        options: SearchOptions = SearchOptions(),  # noqa: B008 - immutable
        excluded_ids: Sequence[str | None] | None = None,
        max_reply_bytes: int | None = None,
    ) -> list[list[Neighbor]]:
        """See `Index.search`."""
        found = self._find(collection)
        return found.search(queries, top_k, options, excluded_ids, max_reply_bytes)

    def flush(self, collection: str) -> None:
        """See `Index.flush`: makes the 1-bit tier, if there are enough items, and writes the files."""
        found = self._find(collection)
        try:
            found.upkeep.run(lambda: self._keeper.stopping, thorough=True)
        except Stopped:
            self._find(collection)
            raise Unavailable("the index is closing") from None
        except OSError as error:
            raise IndexUnusable(f"{self._derived}: {error}; the collection itself is safe") from error

    def replace(self, collection: str, by: str) -> None:
        """See `Index.replace`."""
        with self._writing:
            old, new = self._find(collection), self._find(by)
            if collection == by:
                raise InvalidRequest(f"collection {shorten(by)} by itself; expected another one")
            self._record.rename(new.key, collection, replaced=old.key)
            self._move(by, collection)
            self._retire(old)

    def rename(self, collection: str, name: str) -> None:
        """See `Index.rename`."""
        with self._writing:
            found = self._find(collection)
            check_spec(replace(found.spec, name=name))
            if name in self._collections:
                raise taken(name)
            self._record.rename(found.key, name)
            self._move(collection, name)

    def _move(self, name: str, to: str) -> None:
        collections = self._collections.copy()
        moved = collections.pop(name)
        spec = moved.upkeep.spec = replace(moved.spec, name=to)
        collections[to] = replace(moved, spec=spec)
        self._collections = collections  # at once: nobody sees neither or both

    def _retire(self, gone: Collection) -> None:
        gone.upkeep.retired = True
        self._retired.append(gone.upkeep)
        self._sweeper.due = True
        self._keeper.wake()

    def _work(self) -> list[Work]:
        return [*self._upkeeps(), self._sweeper]

    def _upkeeps(self) -> list[Upkeep]:
        """All that there is to look after; those of collections that are gone once."""
        retired = [self._retired.pop() for _ in range(len(self._retired))]
        return [*retired, *(found.upkeep for found in self._collections.copy().values())]

    def close(self) -> None:
        """See `Index.close`; a second call does nothing.

        What memory holds is written to files, as far as that goes in some seconds, for a quick next start.
        """
        with self._writing:
            if not self._closed:
                self._closed = True
                upkeeps = self._upkeeps()
                self._collections = {}
                try:
                    if self._keeper.close(_CLOSE_TIMEOUT_S):
                        save_all(upkeeps, deadline_in(_CLOSE_TIMEOUT_S))
                    self._record.close()
                finally:
                    self._lock.release()

    def _empty(self, key: int, spec: CollectionSpec) -> Collection:
        segments = Segments(
            spec.dimension, self._max_segment_rows, storage=spec.storage, schema=spec.attributes
        )
        upkeep = Upkeep(self._derived, key, spec, segments, self._min_tier_rows)
        return Collection(key, spec, segments, upkeep)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the index is closed")

    def _find(self, name: str) -> Collection:
        self._check_open()
        found = self._collections.get(name)
        if found is None:
            raise not_found(name, self._collections.copy())
        return found
