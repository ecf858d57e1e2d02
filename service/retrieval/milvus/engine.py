"""The Milvus engine: collections in a Milvus server or cluster that is there already.

Several servers may share it. All is in Milvus, so a server holds no state but its connection, what
collections are made of, which never changes, and the clock that numbers its writes.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.errors import DeadlineExpired, InvalidRequest
from service.retrieval.checks import (
    check_name,
    check_options,
    check_page,
    check_spec,
    check_top_k,
    pack_items,
    pack_queries,
    unpack_attributes,
)
from service.retrieval.filters import Filter, check_filter
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item, Neighbor, SearchOptions
from service.retrieval.milvus import reading, writing
from service.retrieval.milvus.address import parse
from service.retrieval.milvus.catalog import Catalog
from service.retrieval.milvus.conditions import TRUE, translated
from service.retrieval.milvus.search import Hit, Search
from service.retrieval.milvus.server import NotLoaded, Server, TableGone
from service.retrieval.milvus.table import MAX_ATTRIBUTES, MAX_DIMENSION, VECTOR, Table
from service.retrieval.paging import paged
from service.retrieval.replies import FEWER_NEIGHBORS, NUMBER_BYTES, check_reply_size
from service.retrieval.schema import AttributeValue

T = TypeVar("T")
# How often a collection is looked up that is dropped, replaced or loaded just then, each time anew.
_LOOKS = 5
# Writers to one collection wait for each other; those to several mostly don't.
_LOCKS = 64
_INDEX_LOOK_S = 0.2


class MilvusIndex(Index):
    """An index in a Milvus database, from Milvus 2.3.5 on.

    What differs from other engines, because Milvus does:

    - Vectors are float32 whatever the storage; with float16 they are rounded, but take no less room.
    - A write is seen as a whole where it fits one message, of 48 MiB; what `delete_matching` removes may go
      by and by. `delete` counts what was there just before.
    - `items` holds its moment for as many items as fit one page (4,096, or 16 MiB of vectors); of larger
      collections see `reading.everything`.
    - While items are replaced `count`, and with it `describe` and `list_collections`, may count one of them
      several times: its old versions too. Once the writes have rested it is exact.
    - Equally near items come in the order of writing as far as the servers' clocks agree on it.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "fovea",
        index_type: Literal["flat", "hnsw"] = "hnsw",
        connect_timeout_s: float = 10.0,
        call_timeout_s: float = 30.0,
        setup_timeout_s: float = 60.0,
        flush_timeout_s: float = 3600.0,
    ) -> None:
        """Connect, and make what is missing.

        Args:
            url: see `address.parse`.
            namespace: of our collections in the database, apart from others'.
            index_type: of collections made from now on. "hnsw" is approximate, and exact with a recall of 1,
                where all vectors that the filter keeps are read; "flat" is exact, and looks at all of them in
                Milvus.
            connect_timeout_s: until Milvus has answered.
            call_timeout_s: of each call to Milvus; a search or write is one in most cases.
            setup_timeout_s: for making a collection.
            flush_timeout_s: how long `flush` waits for indexes.

        Raises:
            ConfigError: the URL or namespace can't be used.
            StartError: Milvus can't be reached, or can't serve; names it and what failed.
        """
        self._index_type, self._flush_timeout_s = index_type, flush_timeout_s
        self._call_timeout_s = call_timeout_s
        self._server = Server(
            parse(url, namespace), connect_timeout_s=connect_timeout_s, call_timeout_s=call_timeout_s
        )
        self._clock = writing.Clock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._catalog_lock = threading.Lock()
        try:
            self._catalog = Catalog(self._server, setup_timeout_s=setup_timeout_s)
        except BaseException:
            self._server.close()
            raise

    def create(self, spec: CollectionSpec) -> None:
        """See `Index.create`; refuses dimensions above 32,768 and more than 60 attributes."""
        check_spec(spec)
        if spec.dimension > MAX_DIMENSION:
            raise InvalidRequest(
                f"collection {spec.name}: dimension {spec.dimension}; expected at most {MAX_DIMENSION:,}, "
                "as Milvus's vectors have"
            )
        if len(spec.attributes) > MAX_ATTRIBUTES:
            raise InvalidRequest(
                f"{len(spec.attributes)} attributes are declared; expected at most {MAX_ATTRIBUTES}, "
                "as Milvus's collections have"
            )
        with self._changing_catalog():
            self._again(lambda: self._catalog.add(spec, self._index_type))

    def drop(self, collection: str) -> None:
        """See `Index.drop`."""
        with self._changing_catalog():
            self._again(lambda: self._catalog.remove(self._catalog.find(collection)))

    def describe(self, collection: str) -> CollectionInfo:
        """See `Index.describe`."""
        return self._read(collection, self._info)

    def list_collections(self) -> list[CollectionInfo]:
        """See `Index.list_collections`."""

        def infos() -> list[CollectionInfo]:
            tables = self._catalog.list_all()
            found = [self._info(table) for table in tables]
            for table in tables:
                self._catalog.check_current(table)
            return found

        return self._again(infos)

    def _info(self, table: Table) -> CollectionInfo:
        return CollectionInfo(table.spec, reading.count(self._server, table, TRUE), table.index_type)

    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        """See `Index.upsert`."""

        def write(table: Table) -> None:
            batch = pack_items(table.spec, items)
            writing.write(self._server, table, batch, self._clock.take(len(batch.ids)))

        self._write(collection, write)

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """See `Index.delete`."""
        return self._write(collection, lambda table: writing.delete(self._server, table, ids))

    def delete_matching(self, collection: str, condition: Filter) -> int:
        """See `Index.delete_matching`."""

        def delete(table: Table) -> int:
            check_filter(table.spec.attributes, condition)
            return writing.delete_matching(self._server, table, condition)

        return self._write(collection, delete)

    def get(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        max_reply_bytes: int | None = None,
    ) -> list[Item]:
        """See `Index.get`."""
        return self._read(
            collection,
            lambda table: reading.get(
                self._server, table, ids, include_vectors=include_vectors, max_reply_bytes=max_reply_bytes
            ),
        )

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Index.vectors`."""
        return self._read(collection, lambda table: reading.vectors_of(self._server, table, ids))

    def count(self, collection: str, condition: Filter | None = None) -> int:
        """See `Index.count`."""

        def count(table: Table) -> int:
            if condition is not None:
                check_filter(table.spec.attributes, condition)
            return reading.count(self._server, table, translated(table, condition))

        return self._read(collection, count)

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

        def scan(table: Table) -> list[Item]:
            check_page(after, limit)
            if condition is not None:
                check_filter(table.spec.attributes, condition)
            return reading.page(
                self._server,
                table,
                after=after,
                limit=limit,
                condition=condition,
                include_vectors=include_vectors,
                max_reply_bytes=max_reply_bytes,
            )

        return self._read(collection, scan)

    @contextmanager
    def items(self, collection: str) -> Iterator[Iterator[list[Item]]]:
        """See `Index.items`; holds the moment of small collections only, see the class."""
        pages = self._read(collection, lambda table: reading.everything(self._server, table))
        with closing(pages):
            yield pages

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

        def search(table: Table) -> list[list[Neighbor]]:
            check_top_k(top_k)
            check_options(table.spec, options)
            vectors = pack_queries(table.spec, queries)

            def group_of(hit: Hit) -> AttributeValue | None:
                if options.group_by is None:
                    return None
                return unpack_attributes(hit.attributes).get(options.group_by.attribute)

            one = Search(self._server, table, vectors, options)
            return _neighbors(
                paged(one.fetch, len(vectors), top_k, options, excluded_ids, group_of), max_reply_bytes
            )

        return self._read(collection, search)

    def flush(self, collection: str) -> None:
        """See `Index.flush`; Milvus writes what it holds in memory to its store, and indexes it."""
        deadline = time.monotonic() + self._flush_timeout_s

        def flush(table: Table) -> None:
            self._server.call("flush", table.name, timeout_s=max(1.0, deadline - time.monotonic()))
            while self._server.call("describe_index", table.name, VECTOR).get("pending_index_rows", 0):
                if time.monotonic() > deadline:
                    raise DeadlineExpired(
                        f"the index of collection {collection} is still being built; searches are slower "
                        "until it is"
                    )
                time.sleep(_INDEX_LOOK_S)

        self._read(collection, flush)

    def replace(self, collection: str, by: str) -> None:
        """See `Index.replace`."""
        with self._changing_catalog():
            self._again(lambda: self._catalog.replace(self._catalog.find(collection), self._catalog.find(by)))

    def rename(self, collection: str, name: str) -> None:
        """See `Index.rename`."""
        check_name("collection", name)
        with self._changing_catalog():
            self._again(lambda: self._catalog.rename(self._catalog.find(collection), name))

    def close(self) -> None:
        """See `Index.close`; a second call does nothing."""
        self._server.close()

    def _read(self, collection: str, work: Callable[[Table], T]) -> T:
        def read() -> T:
            table = self._catalog.find(collection)
            result = work(table)
            self._catalog.check_current(table)
            return result

        return self._again(read)

    def _write(self, collection: str, work: Callable[[Table], T]) -> T:
        def write() -> T:
            table = self._catalog.find(collection)
            with self._held(self._locks[hash(table.name) % _LOCKS], f"collection {collection}"):
                return work(table)

        return self._again(write)

    def _again(self, work: Callable[[], T]) -> T:
        for _ in range(_LOOKS - 1):
            with suppress(TableGone):
                try:
                    return work()
                except NotLoaded as error:
                    self._catalog.load(error.collection)
        return work()

    @contextmanager
    def _changing_catalog(self) -> Iterator[None]:
        with self._held(self._catalog_lock, "the collections"):
            yield

    @contextmanager
    def _held(self, lock: threading.Lock, what: str) -> Iterator[None]:
        if not lock.acquire(timeout=self._call_timeout_s):
            raise DeadlineExpired(
                f"another write to {what} took longer than {self._call_timeout_s:g} s; nothing was changed"
            )
        try:
            yield
        finally:
            lock.release()


def _neighbors(hits_of_queries: Sequence[Sequence[Hit]], max_reply_bytes: int | None) -> list[list[Neighbor]]:
    if max_reply_bytes is not None:
        size = sum(
            NUMBER_BYTES + len(hit.id.encode()) + len(hit.attributes.encode())
            for hits in hits_of_queries
            for hit in hits
        )
        check_reply_size(size, max_reply_bytes, FEWER_NEIGHBORS)
    return [
        [Neighbor(hit.id, hit.score, unpack_attributes(hit.attributes)) for hit in hits]
        for hits in hits_of_queries
    ]
