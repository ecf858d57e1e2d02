"""The schema of our tables, by version."""

from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier

from service.errors import IndexUnusable
from service.retrieval.pgvector.address import Address
from service.retrieval.pgvector.database import GRACE_S, Connection

# MIGRATIONS[n] brings version n to n + 1. Never edit one that was released: add the next.
MIGRATIONS = (
    """
    CREATE TABLE collections (
        key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- its items are in items_<key>
        name text COLLATE "C" NOT NULL UNIQUE,
        dimension integer NOT NULL,
        metric text NOT NULL,
        fingerprint text NOT NULL,
        storage text NOT NULL,
        attributes text NOT NULL, -- JSON, [[name, type], …]: the n-th, from 1, is in column a<n>
        count bigint NOT NULL DEFAULT 0,
        smallest_norm double precision NOT NULL DEFAULT 'Infinity', -- of any vector that was ever in it
        largest_norm double precision NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50) -- count changes with every write: room for the new row beside the old
    """,
)
SCHEMA_VERSION = len(MIGRATIONS)
# Any number that no other program takes for its own advisory locks: "FOVEA" in ASCII.
_LOCK = 0x464F564541
# pgvector 0.8.0 brought iterative scans, without which a filter leaves too few.
_PGVECTOR = (0, 8)


def migrate(address: Address, timeout_s: float) -> None:
    """Bring the database to this release's schema; servers that start at once do it one after the other.

    Raises:
        IndexUnusable: it can't be reached or changed, is of a newer release, or lacks pgvector; says what
            failed.
    """
    try:
        with Connection.connect(address.conninfo) as connection:
            connection.reply_timeout_s = timeout_s + GRACE_S
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", (f"{round(1000 * timeout_s)}",)
            )
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            _check_encoding(connection, address)
            _add_extension(connection, address)
            _add_tables(connection, address)
    except psycopg.Error as error:
        raise IndexUnusable(f"{address}: {address.told(error)}") from error


def _check_encoding(connection: Connection, address: Address) -> None:
    encoding = _value(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise IndexUnusable(f"{address}: the database's encoding is {encoding}; expected UTF8")


def _add_extension(connection: Connection, address: Address) -> None:
    version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    if _value(connection, version) is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            raise IndexUnusable(
                f"{address}: {address.told(error)}; install pgvector {_PGVECTOR[0]}.{_PGVECTOR[1]} or newer "
                "on the database's machine, and have a superuser run CREATE EXTENSION vector"
            ) from error
    found = str(_value(connection, version))
    if tuple(map(int, found.split(".")[:2])) < _PGVECTOR:
        raise IndexUnusable(
            f"{address}: pgvector {found}; expected {_PGVECTOR[0]}.{_PGVECTOR[1]} or newer: update it, and "
            "run ALTER EXTENSION vector UPDATE"
        )


def _add_tables(connection: Connection, address: Address) -> None:
    schema = Identifier(address.schema)
    # IF NOT EXISTS asks for the right to make one even where there is one.
    if _value(connection, "SELECT to_regnamespace(quote_ident(%s))", address.schema) is None:
        connection.execute(SQL("CREATE SCHEMA {}").format(schema))
    connection.execute(SQL("SET LOCAL search_path = {}").format(schema))
    if _value(connection, "SELECT to_regclass('schema_versions')") is None:
        connection.execute(
            "CREATE TABLE schema_versions ("
            "version integer PRIMARY KEY, migrated_at timestamptz NOT NULL DEFAULT now())"
        )
    version = int(_value(connection, "SELECT coalesce(max(version), 0) FROM schema_versions"))
    if version > SCHEMA_VERSION:
        raise IndexUnusable(
            f"{address}: schema version {version}; this release reads up to {SCHEMA_VERSION}: use the newer "
            "release that wrote it"
        )
    for number in range(version, SCHEMA_VERSION):
        try:
            connection.execute(MIGRATIONS[number])
        except errors.DuplicateTable as error:
            raise IndexUnusable(
                f"{address}: {address.told(error)}, and isn't ours; choose another schema"
            ) from error
        connection.execute("INSERT INTO schema_versions (version) VALUES (%s)", (number + 1,))


def _value(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query, parameters or None).fetchone()
    return row[0] if row else None
