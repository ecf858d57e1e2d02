"""Searches while writing: each sees a write as a whole or not at all."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.retrieval.filters import Equals, Exists, Range
from service.retrieval.index import CollectionSpec, Index, Item, Metric, SearchOptions
from service.retrieval.schema import AttributeType
from tests.service.retrieval.conftest import COUNTS_TWICE

GROUP = [f"id-{n}" for n in range(40)]
WRITES = 60


@pytest.fixture(autouse=True)
def _eager_switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Rounds:
    """How often each reader has read beside the writes, and whether they are to end."""

    def __init__(self, readers: int) -> None:
        self.finished = threading.Event()
        self._done = [0] * readers
        self._give_up = time.monotonic() + 30

    def add(self, reader: int) -> None:
        """Counts a round, for the one thread of that reader."""
        self._done[reader] += 1

    def writes(self, at_least: int) -> Iterator[int]:
        """1, 2 … for so many writes, and on until each reader has made 4 rounds, within reason."""
        for number in itertools.count(1):
            if number > at_least and (self.enough() or time.monotonic() > self._give_up):
                return
            yield number

    def enough(self) -> bool:
        """Whether all did run beside the writes."""
        return min(self._done) > 3


def write(index: Index, version: int) -> None:
    """All of the group at once; vector and attribute carry the version."""
    vector = np.array([version, 1], np.float32)
    index.upsert("photos", [Item(name, vector, {"version": version}) for name in GROUP])


def check_search(index: Index, queries: int) -> list[int]:
    """The version that each query saw, of all items alike."""
    results = index.search("photos", np.tile(np.array([1, 0], np.float32), (queries, 1)), 1000)
    versions = []
    for neighbors in results:
        assert sorted(neighbor.id for neighbor in neighbors) == sorted(GROUP)
        seen = {(neighbor.score, neighbor.attributes["version"]) for neighbor in neighbors}
        [(score, version)] = seen
        assert score == version
        versions.append(int(version))
    return versions


def check_get(index: Index, _: int) -> list[int]:
    items = index.get("photos", GROUP)
    assert [item.id for item in items] == GROUP
    [(first, version)] = {(float(item.vector[0]), item.attributes["version"]) for item in items}
    assert first == version
    return [int(version)]


def test_readers_see_whole_writes_in_their_order(index: Index, engine: str) -> None:
    index.create(CollectionSpec("photos", 2, Metric.INNER_PRODUCT, ""))
    write(index, 0)
    readings = [(check_search, 1), (check_search, 1), (check_search, 5), (check_get, 1)]
    rounds = Rounds(len(readings))

    def read(reader: int, check: Callable[[Index, int], list[int]], queries: int) -> None:
        last = 0
        while not rounds.finished.is_set():
            versions = check(index, queries)
            assert len(set(versions)) == 1
            assert versions[0] >= last
            assert engine in COUNTS_TWICE or index.count("photos") == len(GROUP)
            if versions[0] > last:  # only another version is another round
                rounds.add(reader)
            last = versions[0]

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, number, *reading) for number, reading in enumerate(readings)]
        try:
            for version in rounds.writes(WRITES):
                write(index, version)
                assert check_search(index, 1) == [version]
        finally:
            rounds.finished.set()
        for reader in readers:
            reader.result()
    assert rounds.enough()


def test_filtered_reads_see_whole_writes(index: Index, engine: str) -> None:
    schema = {"version": AttributeType.INT}
    index.create(CollectionSpec("photos", 2, Metric.INNER_PRODUCT, "", schema))
    write(index, 0)
    rounds = Rounds(2)
    query = np.array([[1, 0]], np.float32)

    def read(reader: int, first: int) -> None:
        while not rounds.finished.is_set():
            options = SearchOptions(filter=Range("version", gte=first))
            [neighbors] = index.search("photos", query, 1000, options=options)
            versions = {(neighbor.score, neighbor.attributes["version"]) for neighbor in neighbors}
            assert len(neighbors) in (0, len(GROUP))
            assert all(score == version and score >= first for score, version in versions)
            assert len(versions) <= 1
            if engine not in COUNTS_TWICE:
                assert index.count("photos", Exists("version")) == len(GROUP)
                assert index.count("photos", Equals("version", first)) in (0, len(GROUP))
            with index.items("photos") as pages:
                items = [item for page in pages for item in page]
            assert sorted(item.id for item in items) == sorted(GROUP)
            assert len({item.attributes["version"] for item in items}) == 1
            rounds.add(reader)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, number, first) for number, first in enumerate((0, WRITES // 2))]
        try:
            for version in rounds.writes(WRITES):
                write(index, version)
        finally:
            rounds.finished.set()
        for reader in readers:
            reader.result()
    assert rounds.enough()


def test_nobody_sees_neither_or_both_of_a_replacement(index: Index) -> None:
    def make(name: str, version: int) -> None:
        index.create(CollectionSpec(name, 2, Metric.INNER_PRODUCT, ""))
        index.upsert(
            name,
            [Item(f"id-{n}", np.array([version, 1], np.float32), {"version": version}) for n in range(40)],
        )

    make("photos", 0)
    rounds = Rounds(2)

    def read(reader: int) -> None:
        while not rounds.finished.is_set():
            check_search(index, 1)
            assert index.count("photos") == len(GROUP)
            names = [info.spec.name for info in index.list_collections()]
            assert names in (["photos"], ["new", "photos"])
            rounds.add(reader)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        try:
            for version in rounds.writes(20):
                make("new", version)
                index.replace("photos", "new")
                assert check_search(index, 1) == [version]
        finally:
            rounds.finished.set()
        for reader in readers:
            reader.result()
    assert rounds.enough()


def test_what_was_deleted_is_never_found_again(index: Index) -> None:
    index.create(CollectionSpec("photos", 2, Metric.L2, ""))
    deleted: set[str] = set()
    rounds = Rounds(2)

    def read(reader: int) -> None:
        while not rounds.finished.is_set():
            gone = set(deleted)
            for count in (10, 1000):
                [neighbors] = index.search("photos", np.zeros((1, 2), np.float32), count)
                assert gone.isdisjoint(neighbor.id for neighbor in neighbors)
            rounds.add(reader)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        try:
            for number in rounds.writes(WRITES):
                start = 20 * number
                ids = [str(n) for n in range(start, start + 20)]
                index.upsert("photos", [Item(name, np.array([int(name), 0], np.float32)) for name in ids])
                assert index.delete("photos", ids[:19]) == 19
                deleted.update(ids[:19])
        finally:
            rounds.finished.set()
        for reader in readers:
            reader.result()
    assert rounds.enough()
    assert index.count("photos") == number


def test_writers_of_several_threads_lose_nothing(index: Index) -> None:
    index.create(CollectionSpec("photos", 2, Metric.L2, ""))

    def work(worker: int) -> None:
        for n in range(20):
            ids = [f"{worker}-{n}-{i}" for i in range(5)]
            index.upsert(
                "photos", [Item(name, np.array([worker, n], np.float32)) for name in [*ids, "shared"]]
            )
            assert index.delete("photos", ids[:1]) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert index.count("photos") == 4 * 20 * 4 + 1
    [neighbors] = index.search("photos", np.zeros((1, 2), np.float32), 1000)
    assert len({neighbor.id for neighbor in neighbors}) == len(neighbors) == 321
