"""Connections to the database: a bounded pool, a deadline on every wait, and errors by their meaning."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from service.errors import DeadlineExpired, FoveaError, IndexUnusable, Unavailable
from service.retrieval.pgvector import vectors
from service.retrieval.pgvector.address import Address

Cursor = psycopg.Cursor[tuple[Any, ...]]
# How much longer than the server's own deadline a reply is waited for: then the server hangs, or is gone.
GRACE_S = 5.0
# Once the pool has tried for so long in vain, the next call tries again at once.
_RECONNECT_S = 2.0
_MAX_WAITING = 256
_CLOSE_TIMEOUT_S = 5.0
# What comes of a server that stops, starts or has too much to do; all of it passes.
_PASSING = (
    errors.AdminShutdown,
    errors.CannotConnectNow,
    errors.CrashShutdown,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.SerializationFailure,
    errors.TooManyConnections,
    errors.UniqueViolation,  # two at once took a name
)


class TableGone(Unavailable):
    """A collection was dropped or replaced between looking it up and using it; look again."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up waiting.

    Attributes:
        reply_timeout_s: for one reply, or one part of a long one; None: as long as it takes.
    """

    reply_timeout_s: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, which has no timeout of its own but here."""
        try:
            return super().wait(gen, interval, self.reply_timeout_s if timeout is None else timeout)
        except errors._WaitTimeout:
            self.pgconn.finish()  # what comes now would answer another question
            raise psycopg.OperationalError(f"no reply within {self.reply_timeout_s:g} s") from None


class Database:
    """A pool of connections, all with the same settings. For any number of threads."""

    def __init__(
        self, address: Address, *, pool_size: int, pool_timeout_s: float, statement_timeout_s: float
    ) -> None:
        """Connect once, so that what is wrong is known at the start.

        Args:
            address: of the database.
            pool_size: connections at most; calls beyond wait.
            pool_timeout_s: how long a call waits for a connection.
            statement_timeout_s: of each statement.

        Raises:
            IndexUnusable: no connection can be made; names the host and what failed.
        """
        self.address = address
        self._pool_timeout_s, self._statement_timeout_s = pool_timeout_s, statement_timeout_s
        self._pool = ConnectionPool(
            address.conninfo,
            connection_class=Connection,
            # Prepared statements are the session's: behind a pooler, somebody else's.
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=pool_size,
            open=False,
            configure=lambda connection: self._configure(connection, statement_timeout_s),
            name="fovea",
            timeout=pool_timeout_s,
            max_waiting=_MAX_WAITING,
            reconnect_timeout=_RECONNECT_S,
            num_workers=2,
        )

    def open(self) -> None:
        """Start the pool.

        Raises:
            IndexUnusable: no connection can be made.
        """
        self._pool.open()
        try:
            self._pool.wait(self._pool_timeout_s)
        except PoolTimeout as error:
            raise IndexUnusable(f"{self.address}: no connection within {self._pool_timeout_s:g} s") from error

    def connect(self, statement_timeout_s: float | None = None) -> Connection:
        """A connection outside the pool, for what takes long; the caller closes it.

        Args:
            statement_timeout_s: None: statements take as long as they take.

        Raises:
            psycopg.Error: it can't be made.
        """
        connection = Connection.connect(self.address.conninfo, autocommit=True, prepare_threshold=None)
        try:
            self._configure(connection, statement_timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: Connection, statement_timeout_s: float | None) -> None:
        connection.reply_timeout_s = self._statement_timeout_s + GRACE_S
        extension = connection.execute(
            "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname = 'vector'"
        ).fetchone()
        if extension is None:
            raise errors.UndefinedObject("the extension vector is gone")
        search_path = SQL(", ").join(map(Identifier, dict.fromkeys([self.address.schema, *extension])))
        settings = {
            "search_path": search_path.as_string(connection),
            "statement_timeout": f"{round(1000 * (statement_timeout_s or 0))}",
            # Plans hang on the values: a filter may keep one item or all of them.
            "plan_cache_mode": "force_custom_plan",
            # Compiling a plan takes longer than what is run with it.
            "jit": "off",
        }
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        vectors.register(connection)
        if statement_timeout_s is None:
            connection.reply_timeout_s = None

    @contextmanager
    def transaction(self, *, read_only: bool) -> Iterator[Cursor]:
        """A transaction: committed at the end, and rolled back where an error leaves it.

        A read-only one sees one moment; any other each time what is committed.

        Raises:
            Unavailable: no connection was free, or it was lost. A write whose commit was under way may have
                been done all the same; else it wasn't.
            DeadlineExpired: a statement took too long.
            TableGone: see there.
            IndexUnusable: all else that the database refuses, as when its disk is full.
        """
        # Not as the database has it by default.
        mode = "REPEATABLE READ READ ONLY" if read_only else "READ COMMITTED READ WRITE"
        connection = self._begun(f"BEGIN ISOLATION LEVEL {mode}")
        undone = "nothing was changed by this call"
        try:
            with connection.cursor(binary=True) as cursor:
                yield cursor
                undone = "what this call changes may be done all the same"
                cursor.execute("COMMIT")
        except psycopg.Error as error:
            raise self._translated(error, undone) from error
        finally:
            with suppress(psycopg.Error):  # the connection is lost: the pool sees it
                connection.rollback()
            self._pool.putconn(connection)

    def _begun(self, begin: str) -> Connection:
        try:
            connection = self._pool.getconn()
            if self._answers(connection, begin):
                return connection
            # The others were most likely lost with it, as when the server was restarted.
            self._pool.putconn(connection)
            self._pool.drain()
            connection = self._pool.getconn()
            try:
                connection.execute(begin)
            except BaseException:
                self._pool.putconn(connection)
                raise
            return connection
        except psycopg.Error as error:
            raise self._translated(error, "nothing was changed by this call") from error

    @staticmethod
    def _answers(connection: Connection, begin: str) -> bool:
        try:
            connection.execute(begin)
        except psycopg.Error:
            return False
        return True

    def _translated(self, error: psycopg.Error, undone: str) -> FoveaError:
        told = f"{self.address}: {self.address.told(error)}"
        match error:
            case PoolClosed():
                return Unavailable("the index is closed")
            case PoolTimeout() | TooManyRequests():
                return Unavailable(
                    f"{self.address}: no connection was free, or could be made, within "
                    f"{self._pool_timeout_s:g} s; nothing was changed by this call"
                )
            case errors.QueryCanceled():
                return DeadlineExpired(
                    f"{self.address}: a statement took longer than {self._statement_timeout_s:g} s; {undone}"
                )
            case errors.UndefinedTable():
                return TableGone(told)
        # An error of the server has an SQLSTATE; without one, the connection is lost.
        lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
        if lost or isinstance(error, _PASSING):
            return Unavailable(f"{told}; {undone}")
        return IndexUnusable(f"{told}; {undone}")

    def close(self) -> None:
        """End the pool; calls under way keep their connection to the end."""
        self._pool.close(_CLOSE_TIMEOUT_S)
