"""What is done in the background, beside searches and writes: HNSW indexes are built, old tables dropped."""

import threading
import time
from contextlib import suppress

import psycopg
import structlog
from psycopg import errors
from psycopg.sql import SQL

from service.errors import DeadlineExpired, IndexUnusable
from service.retrieval.pgvector import catalog
from service.retrieval.pgvector.database import Connection, Database
from service.retrieval.pgvector.table import Table

# Of each item in the graph, and from how many they are chosen; see `candidates_for`.
_LINKS, _CANDIDATES = 16, 128
# How often a build by another server is looked at, or a table that is still read.
_LOOK_S = 1.0
# After what failed, as a build for want of disk.
_RETRY_S = 60.0
_CLOSE_TIMEOUT_S = 10.0
log = structlog.get_logger()


class Upkeep:
    """A thread that sees to one collection at a time: it has grown to the size for an index, or is gone.

    Of several servers on one database one builds an index, told by an advisory lock; the others wait. What a
    build that broke off left behind is invalid, which searches see; it is dropped before the next try.
    """

    def __init__(self, database: Database, *, min_items: int, memory_mb: int) -> None:
        """Start the thread.

        Args:
            database: has the collections.
            min_items: of a collection, before it gets an index.
            memory_mb: for a build ("maintenance_work_mem"); a graph that doesn't fit takes much longer.
        """
        self._database, self._min_items, self._memory_mb = database, min_items, memory_mb
        self._changed = threading.Condition()
        self._wanted: dict[int, float] = {}  # key → not before this time
        self._current: int | None = None
        self._failures: dict[int, str] = {}
        self._connection: Connection | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="fovea-upkeep", daemon=True)
        self._thread.start()

    def consider(self, table: Table) -> None:
        """Have an index built, if the collection is large enough and has none; or an unfit one dropped."""
        if self.wants(table):
            self.see_to(table.key)

    def see_to(self, key: int) -> None:
        """Have done what there is to do for a collection, by its key: it may be gone."""
        with self._changed:
            self._wanted.setdefault(key, 0.0)
            self._changed.notify_all()

    def wants(self, table: Table) -> bool:
        """Whether the collection should have an index that isn't there, or has one that serves no more."""
        if table.indexed_as is None:
            return table.has_index
        return not table.has_index and table.count >= self._min_items

    def wait(self, table: Table, deadline: float) -> None:
        """Wait until the collection has its index, or no longer needs one.

        Args:
            table: the collection.
            deadline: by time.monotonic().

        Raises:
            DeadlineExpired: it isn't ready; the build goes on.
            IndexUnusable: the build failed; says why.
        """
        with self._changed:
            self._wanted[table.key] = 0.0  # now, even where one failed just before
            self._failures.pop(table.key, None)
            self._changed.notify_all()
            while (table.key in self._wanted or table.key == self._current) and not self._closed:
                if failure := self._failures.get(table.key):
                    raise IndexUnusable(failure)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeadlineExpired(
                        f"the index of collection {table.spec.name} is still being built; searches look at "
                        "every item until it is"
                    )
                self._changed.wait(left)

    def _run(self) -> None:
        while (key := self._next()) is not None:
            try:
                again_s = None if self._done(key) else _LOOK_S
            except (errors.LockNotAvailable, errors.QueryCanceled, errors.UndefinedTable):
                again_s = _LOOK_S  # a build was given up as the collection goes, or its table is still read
            except psycopg.Error as error:
                again_s = _RETRY_S
                self._failed(key, error)
            with self._changed:
                self._current = None
                if again_s is not None:
                    self._wanted.setdefault(key, time.monotonic() + again_s)
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due = {key: max(0.0, at - now) for key, at in self._wanted.items()}
                if due and min(due.values()) == 0:
                    # From now on it may be wanted anew, for what comes too late for this time.
                    self._current = min(due, key=due.__getitem__)
                    del self._wanted[self._current]
                    return self._current
                self._changed.wait(min(due.values(), default=None))
            return None

    def _failed(self, key: int, error: psycopg.Error) -> None:
        told = f"{self._database.address}: upkeep of items_{key}: {self._database.address.told(error)}"
        log.error("upkeep_failed", error=told, retry_s=_RETRY_S)
        with self._changed:
            self._failures[key] = told

    def _done(self, key: int) -> bool:
        """Build an index, where it is still wanted, or drop a table; False: another server is at it."""
        connection = self._database.connect()
        with self._changed:
            self._connection = connection
        try:
            with connection.cursor(binary=True) as cursor:
                table = catalog.by_key(cursor, key)
                if table is None:
                    catalog.drop_orphan(cursor, key, round(1000 * _LOOK_S))
                if table is None or not self.wants(table):
                    return True
                name = f"{self._database.address.schema}.items_{key}"
                # Held by the connection, so a process that dies lets it go.
                [(ours,)] = cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,))
                if ours and not self._closed:
                    self._build(connection, table)
                return bool(ours)
        finally:
            with self._changed:
                self._connection = None
            connection.close()

    def _build(self, connection: Connection, table: Table) -> None:
        # An invalid one, or one that serves no more.
        connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(table.index_name))
        if table.indexed_as is None:
            log.info("index_dropped", collection=table.spec.name, reason="its vectors' lengths differ")
            return
        started = time.monotonic()
        log.info("index_building", collection=table.spec.name, items=table.count)
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{self._memory_mb}MB",))
        connection.execute(table.create_index(_LINKS, _CANDIDATES))
        connection.execute(SQL("ANALYZE {}").format(table.name))
        log.info("index_built", collection=table.spec.name, seconds=round(time.monotonic() - started, 1))

    def close(self) -> None:
        """Give up the build under way; the next server to open the database begins it again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        # A statement that begins just after it was cancelled is cancelled by the next one.
        while self._thread.is_alive() and time.monotonic() < deadline:
            with self._changed:
                connection = self._connection
            if connection is not None:
                with suppress(psycopg.Error):  # it ended just now, or its server is gone
                    connection.cancel_safe(timeout=_LOOK_S)
            self._thread.join(_LOOK_S / 10)
