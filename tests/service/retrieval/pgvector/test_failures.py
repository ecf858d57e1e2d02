"""What becomes of calls when the database is slow, gone, or back again."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from service.errors import DeadlineExpired, IndexUnusable, StartError, Unavailable
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.pgvector import database
from service.retrieval.pgvector.engine import PgvectorIndex
from tests.client.waiting import until
from tests.service.retrieval.pgvector import server
from tests.service.retrieval.pgvector.conftest import Opener, Sql

SPEC = CollectionSpec("photos", 2, Metric.L2, "")


def items(*names: str) -> list[Item]:
    return [Item(name, np.zeros(2, np.float32)) for name in names]


@contextmanager
def held(sql: Sql) -> Iterator[None]:
    """While another session writes to the collections and doesn't end."""
    sql("BEGIN")
    sql("SELECT FROM collections FOR UPDATE")
    try:
        yield
    finally:
        sql("ROLLBACK")


def test_a_server_that_is_not_there_is_named_at_the_start(schema: str) -> None:
    with pytest.raises(
        StartError, match=r"PostgreSQL at 127\.0\.0\.1:1, database x, schema .*refused"
    ) as caught:
        PgvectorIndex("postgresql://u:hunter2@127.0.0.1:1/x", schema=schema)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_not_there_is_told(open_index: Opener, conninfo: str) -> None:
    with pytest.raises(IndexUnusable, match='database "nowhere" does not exist'):
        open_index(conninfo=conninfo.replace("/postgres?", "/nowhere?"))


def test_connections_that_are_lost_are_replaced(open_index: Opener, sql: Sql) -> None:
    index = open_index(pool_size=4)
    index.create(SPEC)
    index.upsert("photos", items("a", "b"))
    with ExitStack() as stack:  # so that several are open
        for _ in range(3):
            stack.enter_context(index.items("photos"))
    for number in range(3):
        lost = sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'fovea' AND datname = current_database()"
        )
        assert lost
        index.upsert("photos", items(f"after {number}"))
        assert index.count("photos") == 3 + number


def test_a_connection_lost_during_a_call_fails_only_that_call(open_index: Opener, sql: Sql) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert("photos", items("a"))

    def read() -> None:
        with index.items("photos") as pages:
            sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = 'fovea' AND state = 'idle in transaction'"
            )
            list(pages)

    with pytest.raises(Unavailable, match="terminating connection"):
        read()
    assert index.count("photos") == 1


def test_a_restart_is_survived(schema: str) -> None:
    own = server.start()
    index = PgvectorIndex(own.get_uri(), schema=schema, pool_timeout_s=1)
    try:
        index.create(SPEC)
        index.upsert("photos", items("a"))
        own.stop()
        for _ in range(2):
            with pytest.raises(Unavailable, match="nothing was changed by this call"):
                index.upsert("photos", items("b"))
        own.start()
        for _ in range(20):  # the pool tries about once a second
            try:
                index.upsert("photos", items("c"))
                break
            except Unavailable:
                pass
        assert [item.id for item in index.scan("photos")] == ["a", "c"]
    finally:
        index.close()
        own.stop()


def test_a_statement_that_takes_too_long_is_ended_and_changes_nothing(open_index: Opener, sql: Sql) -> None:
    index = open_index()
    index.create(SPEC)
    impatient = open_index(statement_timeout_s=3)
    with held(sql), pytest.raises(DeadlineExpired, match="longer than 3 s; nothing was changed"):
        impatient.upsert("photos", items("a"))
    assert index.count("photos") == 0
    impatient.upsert("photos", items("a"))
    assert index.count("photos") == 1


def test_a_server_that_hangs_is_given_up(
    open_index: Opener, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "GRACE_S", 0.1)
    index = open_index(statement_timeout_s=2.9)
    index.create(SPEC)
    [(pid,)] = sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'fovea' AND state = 'idle'")
    os.kill(pid, signal.SIGSTOP)
    try:
        # The one connection hangs; so the call gives it up, and is answered by another.
        index.upsert("photos", items("a"))
        assert index.count("photos") == 1
    finally:
        os.kill(pid, signal.SIGCONT)

    def read() -> None:
        with index.items("photos") as pages:
            [(pid,)] = sql("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'")
            os.kill(pid, signal.SIGSTOP)
            try:
                list(pages)
            finally:
                os.kill(pid, signal.SIGCONT)

    with pytest.raises(Unavailable, match="no reply within 3 s"):
        read()
    assert index.count("photos") == 1


def test_calls_beyond_the_pool_wait_only_so_long(open_index: Opener) -> None:
    index = open_index(pool_size=1, pool_timeout_s=3)
    index.create(SPEC)
    with index.items("photos"), pytest.raises(Unavailable, match=r"no connection was free.* within 3 s"):
        index.count("photos")
    assert index.count("photos") == 0


def test_after_close_calls_are_refused(open_index: Opener) -> None:
    index = open_index()
    index.close()
    with pytest.raises(Unavailable, match="the index is closed"):
        index.list_collections()
    index.close()


def test_a_write_that_fails_half_way_leaves_nothing(open_index: Opener, sql: Sql) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert("photos", items("kept"))
    sql("ALTER TABLE items_1 ADD CHECK (id <> 'refused')")
    many = items(*(f"{n:04}" for n in range(1500)), "refused")  # beyond the first statement of the write
    with pytest.raises(IndexUnusable, match=r"violates check constraint.*nothing was changed"):
        index.upsert("photos", many)
    assert [item.id for item in index.scan("photos")] == ["kept"]
    assert index.count("photos") == 1


def test_two_servers_write_to_one_collection(open_index: Opener, conninfo: str) -> None:
    first = open_index()
    # Whatever is the rule in the database.
    strict = "options=-c%20default_transaction_isolation%3Dserializable"
    second = open_index(conninfo=f"{conninfo}&{strict}")
    first.create(SPEC)
    rng = np.random.default_rng(3)
    batches = [[f"{n:02}" for n in rng.permutation(40)] for _ in range(12)]

    def write(index: PgvectorIndex, some: list[list[str]]) -> None:
        for names in some:
            index.upsert("photos", items(*names))
            index.delete("photos", names[:5])

    with ThreadPoolExecutor(4) as pool:
        writers = [
            pool.submit(write, index, batches[number::4])
            for number, index in enumerate((first, first, second, second))
        ]
    for writer in writers:
        writer.result()
    names = [item.id for item in first.scan("photos")]
    assert second.count("photos") == len(names) == len(set(names))
    with second.items("photos") as pages:
        assert sorted(item.id for page in pages for item in page) == names


def test_searches_see_the_one_or_the_other_while_collections_are_swapped(open_index: Opener) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert("photos", items("0"))
    found: list[str] = []
    ended = threading.Event()

    def search() -> None:
        other = open_index()
        while not ended.is_set():
            [[neighbor]] = other.search("photos", np.zeros((1, 2), np.float32), 5)
            found.append(neighbor.id)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for number in range(1, 20):
            index.create(CollectionSpec("next", 2, Metric.L2, ""))
            index.upsert("next", items(str(number)))
            index.replace("photos", "next")
        until(lambda: "19" in found or not thread.is_alive())
    finally:
        ended.set()
        thread.join()
    assert found[-1] == "19"
    assert [int(name) for name in found] == sorted(int(name) for name in found)


def test_a_collection_is_dropped_while_it_is_read(open_index: Opener, sql: Sql) -> None:
    """At once; who reads it reads to the end, and the next to open the index sees to the table."""
    index = open_index()
    index.create(SPEC)
    index.upsert("photos", items("a"))
    with index.items("photos") as pages:
        index.drop("photos")
        assert index.list_collections() == []
        index.create(SPEC)
        index.close()
        assert [item.id for page in pages for item in page] == ["a"]
    assert sql("SELECT 1 WHERE to_regclass('items_1') IS NOT NULL")
    index = open_index()
    until(lambda: not sql("SELECT 1 WHERE to_regclass('items_1') IS NOT NULL"))
    assert index.count("photos") == 0
