"""Dropped collections: gone at once, their items removed some at a time, also by the next process."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.errors import CollectionNotFound
from service.retrieval import sweeper
from service.retrieval.checks import Batch
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.record import FILE_NAME, Record
from service.retrieval.sweeper import Sweeper
from tests.client.waiting import until

SPEC = CollectionSpec("photos", 4, Metric.L2, "")


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_ITEMS_AT_ONCE", 10)


def rows(path: Path) -> tuple[int, int]:
    """Collections and items in the database, dropped ones too."""
    with closing(sqlite3.connect(path / FILE_NAME)) as connection:
        return tuple(
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - our own names
            for table in ("collections", "items")
        )


def fill(record: Record, name: str, count: int) -> int:
    spec = CollectionSpec(name, 4, Metric.L2, "")
    key = record.create(spec)
    ids = [str(n) for n in range(count)]
    record.write(key, spec, Batch(ids, np.zeros((count, 4), np.float32), ["{}"] * count))
    return key


def test_a_dropped_collection_is_gone_at_once_and_swept_in_parts(tmp_path: Path) -> None:
    record = Record(tmp_path / FILE_NAME)
    kept, gone, replaced = (fill(record, name, 25) for name in ("kept", "gone", "replaced"))
    record.drop(gone)
    record.rename(kept, "replaced", replaced=replaced)
    assert [(key, spec.name) for key, spec in record.collections()] == [(kept, "replaced")]
    assert rows(tmp_path) == (3, 75)
    left = [75]
    while record.sweep(10):
        left.append(rows(tmp_path)[1])
    assert left == [75, 65, 55, 50, 40, 30, 25]
    assert rows(tmp_path) == (1, 25)
    fill(record, "gone", 1)
    record.close()


def test_writers_get_in_between_and_a_stop_ends_it(tmp_path: Path) -> None:
    record, writing, left = Record(tmp_path / FILE_NAME), threading.Lock(), list[int]()
    record.drop(fill(record, "gone", 100))
    one = Sweeper(record, writing)

    def stopped() -> bool:
        assert not writing.locked()
        left.append(rows(tmp_path)[1])
        return left[-1] <= 50

    one.run(stopped)
    assert left == [100, 90, 80, 70, 60, 50]
    due = [one.due]
    with writing:  # as closing does: it must not wait for the lock for ever
        calls = iter([False, False, True])
        one.run(lambda: next(calls))
    one.run(lambda: False)
    assert rows(tmp_path) == (0, 0)
    assert [*due, one.due] == [True, False]
    record.close()


def test_what_a_process_leaves_the_next_one_sweeps(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path)
    index.create(SPEC)
    index.upsert("photos", [Item(str(n), np.ones(4, np.float32)) for n in range(200)])
    index.drop("photos")
    index.create(SPEC)
    index.upsert("photos", [Item("new", np.ones(4, np.float32))])
    index.close()
    index = EmbeddedIndex(tmp_path)
    until(lambda: rows(tmp_path) == (1, 1))
    assert [item.id for item in index.scan("photos")] == ["new"]
    index.drop("photos")
    with pytest.raises(CollectionNotFound):
        index.count("photos")
    index.close()
