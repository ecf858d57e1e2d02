import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.errors import IndexUnusable
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.pgvector.migrations import SCHEMA_VERSION
from tests.service.retrieval.pgvector.conftest import Opener, Sql

SPEC = CollectionSpec("photos", 2, Metric.L2, "")


def test_servers_that_start_at_once_agree(open_index: Opener, sql: Sql) -> None:
    barrier = threading.Barrier(4)

    def open_one(_: int) -> Any:
        barrier.wait()
        return open_index()

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(open_one, range(4))
    first.create(SPEC)
    first.upsert("photos", [Item("a", np.zeros(2, np.float32))])
    assert [index.count("photos") for index in others] == [1, 1, 1]
    assert sql("SELECT version FROM schema_versions") == [(n + 1,) for n in range(SCHEMA_VERSION)]


def test_a_newer_schema_is_refused(open_index: Opener, sql: Sql) -> None:
    open_index().close()
    sql("INSERT INTO schema_versions (version) VALUES (%s)", SCHEMA_VERSION + 1)
    with pytest.raises(IndexUnusable, match=f"version {SCHEMA_VERSION + 1}; .* up to {SCHEMA_VERSION}: use"):
        open_index()


def test_a_schema_of_another_program_is_left_alone(open_index: Opener, sql: Sql, schema: str) -> None:
    sql(f"CREATE SCHEMA {schema}")
    sql("CREATE TABLE collections (theirs text)")
    with pytest.raises(IndexUnusable, match="already exists, and isn't ours; choose another"):
        open_index()
    assert sql("SELECT to_regclass('schema_versions')") == [(None,)]
    assert sql("SELECT count(*) FROM collections") == [(0,)]


def test_a_role_without_rights_on_the_database_serves_a_schema_made_for_it(
    open_index: Opener, sql: Sql, schema: str, conninfo: str, forget_role: Callable[[str], None]
) -> None:
    role = f"{schema}_role"
    forget_role(role)
    sql(f"CREATE ROLE {role} LOGIN")
    theirs = conninfo.replace("postgres:@", f"{role}@")
    with pytest.raises(IndexUnusable, match="permission denied for database"):
        open_index(conninfo=theirs)
    sql(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
    index = open_index(conninfo=theirs)
    index.create(SPEC)
    index.upsert("photos", [Item("a", np.zeros(2, np.float32))])
    assert index.count("photos") == 1


@pytest.fixture
def forget_role(sql: Sql, schema: str, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Drops a role of the test's when the indexes are closed."""

    def forget(role: str) -> None:
        request.addfinalizer(lambda: sql(f"DROP SCHEMA {schema} CASCADE; DROP ROLE {role}"))

    return forget


@pytest.fixture
def other_database(sql: Sql, schema: str, conninfo: str) -> Iterator[Callable[[str], str]]:
    """Makes a database of the test's; gives where it is, for a role that owns it and can do no more."""
    sql(f"CREATE ROLE {schema}_owner LOGIN")

    def make(options: str) -> str:
        sql(f"CREATE DATABASE {schema} OWNER {schema}_owner TEMPLATE template0 {options}")
        return conninfo.replace("postgres:@/postgres", f"{schema}_owner@/{schema}")

    yield make
    sql(f"DROP DATABASE {schema}")
    sql(f"DROP ROLE {schema}_owner")


def test_a_database_that_cannot_hold_every_text_is_refused(
    open_index: Opener, other_database: Callable[[str], str]
) -> None:
    conninfo = other_database("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(IndexUnusable, match="encoding is SQL_ASCII; expected UTF8"):
        open_index(conninfo=conninfo)


def test_without_the_extension_it_is_told_who_can_add_it(
    open_index: Opener, other_database: Callable[[str], str]
) -> None:
    conninfo = other_database("ENCODING 'UTF8'")
    with pytest.raises(IndexUnusable, match=r"permission denied.*run CREATE EXTENSION vector"):
        open_index(conninfo=conninfo)
