"""Indexes on the shared server, in a schema for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.retrieval.pgvector import server

pytest.importorskip("psycopg")

import psycopg

from service.retrieval.pgvector.engine import PgvectorIndex

Opener = Callable[..., PgvectorIndex]
Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def conninfo() -> str:
    """Where the shared server is."""
    return server.shared().get_uri()


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """Of this test."""
    return server.schema_of(tmp_path)


@pytest.fixture
def open_index(conninfo: str, schema: str) -> Iterator[Opener]:
    """Opens the test's schema; may be called several times. All are closed in the end."""
    opened: list[PgvectorIndex] = []

    def open_one(**settings: Any) -> PgvectorIndex:
        opened.append(PgvectorIndex(**{"conninfo": conninfo, "schema": schema, **settings}))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


@pytest.fixture
def sql(conninfo: str, schema: str) -> Iterator[Sql]:
    """Runs a statement in the test's schema, as the database's owner."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (f"{schema}, public",))

        def run(query: str, *parameters: object) -> list[tuple[Any, ...]]:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

        yield run
