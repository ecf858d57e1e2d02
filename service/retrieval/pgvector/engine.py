"""The pgvector engine: collections as tables of a PostgreSQL database that is there already.

Several servers may share a database. Everything is in it, so a server holds no state but its connections.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from psycopg.sql import SQL

from service.errors import InvalidRequest, shorten
from service.retrieval.checks import (
    check_name,
    check_options,
    check_page,
    check_spec,
    check_top_k,
    pack_items,
    pack_queries,
)
from service.retrieval.filters import Filter, check_filter
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item, Neighbor, SearchOptions
from service.retrieval.paging import paged
from service.retrieval.pgvector import catalog, reading, writing
from service.retrieval.pgvector.address import Address
from service.retrieval.pgvector.database import Cursor, Database, TableGone
from service.retrieval.pgvector.migrations import migrate
from service.retrieval.pgvector.search import Hit, Search
from service.retrieval.pgvector.table import MAX_DIMENSION, Table
from service.retrieval.pgvector.upkeep import Upkeep
from service.retrieval.schema import AttributeValue

T = TypeVar("T")
# How often a collection is looked up that is dropped or replaced just then, each time anew.
_LOOKS = 5


class PgvectorIndex(Index):
    """An index in a schema of a PostgreSQL database with pgvector.

    A large collection has an HNSW index, unless its dimension is above 4,000; above 2,000 with other metrics
    than the cosine and float32 storage; or with the inner product where vectors differ in length. Then every
    item is looked at. `items` holds its moment, and a connection of the pool, for as long as it is read.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "fovea",
        pool_size: int = 10,
        pool_timeout_s: float = 5.0,
        connect_timeout_s: int = 5,
        statement_timeout_s: float = 30.0,
        flush_timeout_s: float = 3600.0,
        index_from_items: int = 10_000,
        build_memory_mb: int = 512,
    ) -> None:
        """Connect, and bring the schema to this release's version; makes it where it is missing.

        Args:
            conninfo: postgresql://user:password@host:port/database, or libpq's 'host=… dbname=…'. What it
                leaves out libpq takes from the environment (PGPASSWORD, PGSERVICE …).
            schema: where our tables are, apart from others'.
            pool_size: connections at most; calls beyond wait.
            pool_timeout_s: how long a call waits for a connection.
            connect_timeout_s: for one that is made.
            statement_timeout_s: of each statement; an upsert has one for every 1,000 items or so.
            flush_timeout_s: how long `flush` waits for an index.
            index_from_items: of how many items on a collection gets an HNSW index.
            build_memory_mb: of the database's memory for building one.

        Raises:
            ConfigError: the connection string or schema can't be used.
            IndexUnusable: the database can't be reached, or can't serve; names it and what failed.
        """
        self._flush_timeout_s = flush_timeout_s
        address = Address(conninfo, schema, connect_timeout_s)
        migrate(address, statement_timeout_s)
        self._database = Database(
            address,
            pool_size=pool_size,
            pool_timeout_s=pool_timeout_s,
            statement_timeout_s=statement_timeout_s,
        )
        self._database.open()
        try:
            with self._database.transaction(read_only=True) as cursor:
                tables, orphans = catalog.list_all(cursor), catalog.orphans(cursor)
        except BaseException:
            self._database.close()
            raise
        self._upkeep = Upkeep(self._database, min_items=index_from_items, memory_mb=build_memory_mb)
        for table in tables:
            self._upkeep.consider(table)
        for key in orphans:
            self._upkeep.see_to(key)

    def create(self, spec: CollectionSpec) -> None:
        """See `Index.create`; refuses dimensions above 16,000, which pgvector's types can't hold."""
        check_spec(spec)
        if spec.dimension > MAX_DIMENSION:
            raise InvalidRequest(
                f"collection {spec.name}: dimension {spec.dimension}; expected at most {MAX_DIMENSION:,}, "
                "as pgvector's types have"
            )
        with self._database.transaction(read_only=False) as cursor:
            catalog.add(cursor, spec)

    def drop(self, collection: str) -> None:
        """See `Index.drop`; the table itself goes when nobody reads it any more."""

        def remove(cursor: Cursor, table: Table) -> int:
            catalog.remove(cursor, table)
            return table.key

        self._upkeep.see_to(self._write(collection, remove))

    def describe(self, collection: str) -> CollectionInfo:
        """See `Index.describe`."""
        with self._database.transaction(read_only=True) as cursor:
            return catalog.find(cursor, collection).info

    def list_collections(self) -> list[CollectionInfo]:
        """See `Index.list_collections`."""
        with self._database.transaction(read_only=True) as cursor:
            return [table.info for table in catalog.list_all(cursor)]

    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        """See `Index.upsert`."""

        def write(cursor: Cursor, table: Table) -> Table:
            return writing.write(cursor, table, pack_items(table.spec, items))

        self._upkeep.consider(self._write(collection, write))

    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """See `Index.delete`."""
        return self._write(
            collection, lambda cursor, table: writing.delete(cursor, table, reading.known_ids(ids))
        )

    def delete_matching(self, collection: str, condition: Filter) -> int:
        """See `Index.delete_matching`."""

        def delete(cursor: Cursor, table: Table) -> int:
            check_filter(table.spec.attributes, condition)
            return writing.delete_matching(cursor, table, condition)

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
            lambda cursor, table: reading.get(
                cursor, table, ids, include_vectors=include_vectors, max_reply_bytes=max_reply_bytes
            ),
        )

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Index.vectors`."""
        return self._read(collection, lambda cursor, table: reading.vectors_of(cursor, table, ids))

    def count(self, collection: str, condition: Filter | None = None) -> int:
        """See `Index.count`."""

        def count(cursor: Cursor, table: Table) -> int:
            if condition is None:
                return table.count
            check_filter(table.spec.attributes, condition)
            return reading.count(cursor, table, condition)

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

        def scan(cursor: Cursor, table: Table) -> list[Item]:
            check_page(after, limit)
            if condition is not None:
                check_filter(table.spec.attributes, condition)
            return reading.page(
                cursor,
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
        """See `Index.items`."""
        with ExitStack() as stack:
            cursor, table = self._again(partial(self._held, stack, collection))
            yield stack.enter_context(closing(reading.walk(cursor.connection, table)))

    def _held(self, stack: ExitStack, collection: str) -> tuple[Cursor, Table]:
        with ExitStack() as attempt:
            cursor = attempt.enter_context(self._database.transaction(read_only=True))
            table = catalog.find(cursor, collection)
            # From now on it can't be dropped.
            cursor.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(table.name))
            stack.push(attempt.pop_all())
        return cursor, table

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

        def search(cursor: Cursor, table: Table) -> list[list[Neighbor]]:
            check_top_k(top_k)
            check_options(table.spec, options)
            vectors = pack_queries(table.spec, queries)
            one = Search(cursor, table, vectors, options)
            hits = paged(one.fetch, len(vectors), top_k, options, excluded_ids, _group_of)
            return reading.neighbors(cursor, table, hits, max_reply_bytes)

        return self._read(collection, search)

    def flush(self, collection: str) -> None:
        """See `Index.flush`; waits for an index to be built, and renews the planner's statistics."""
        deadline = time.monotonic() + self._flush_timeout_s
        with self._database.transaction(read_only=True) as cursor:
            table = catalog.find(cursor, collection)
        if self._upkeep.wants(table):
            self._upkeep.wait(table, deadline)
        self._again(partial(self._analyze, collection))

    def _analyze(self, collection: str) -> None:
        with self._database.transaction(read_only=False) as cursor:
            cursor.execute(SQL("ANALYZE {}").format(catalog.find(cursor, collection).name))

    def replace(self, collection: str, by: str) -> None:
        """See `Index.replace`."""

        def take_name(cursor: Cursor, table: Table) -> int:
            new = catalog.lock(cursor, by)
            if collection == by:
                raise InvalidRequest(f"collection {shorten(by)} by itself; expected another one")
            catalog.remove(cursor, table)
            catalog.rename(cursor, new, collection)
            return table.key

        self._upkeep.see_to(self._write(collection, take_name))

    def rename(self, collection: str, name: str) -> None:
        """See `Index.rename`."""
        check_name("collection", name)
        self._write(collection, lambda cursor, table: catalog.rename(cursor, table, name))

    def close(self) -> None:
        """See `Index.close`; a second call does nothing. An index that is being built is given up."""
        self._upkeep.close()
        self._database.close()

    def _read(self, collection: str, work: Callable[[Cursor, Table], T]) -> T:
        def read() -> T:
            with self._database.transaction(read_only=True) as cursor:
                return work(cursor, catalog.find(cursor, collection))

        return self._again(read)

    @staticmethod
    def _again(work: Callable[[], T]) -> T:
        for _ in range(_LOOKS - 1):
            with suppress(TableGone):
                return work()
        return work()

    def _write(self, collection: str, work: Callable[[Cursor, Table], T]) -> T:
        with self._database.transaction(read_only=False) as cursor:
            return work(cursor, catalog.lock(cursor, collection))


def _group_of(hit: Hit) -> AttributeValue | None:
    return hit.group
