"""Searches while writing: each sees a write as a whole or not at all."""

import sys
import threading
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
    finished = threading.Event()

    def read(check: Callable[[Index, int], list[int]], queries: int) -> set[int]:
        seen = [0]
        while not finished.is_set():
            versions = check(index, queries)
            assert len(set(versions)) == 1
            assert versions[0] >= seen[-1]
            assert engine in COUNTS_TWICE or index.count("photos") == len(GROUP)
            seen.append(versions[0])
        return set(seen)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, check_search, n) for n in (1, 1, 5)] + [pool.submit(read, check_get, 1)]
        try:
            for version in range(1, WRITES + 1):
                write(index, version)
                assert check_search(index, 1) == [version]
        finally:
            finished.set()
        seen = [reader.result() for reader in readers]
    assert all(len(versions) > 3 for versions in seen)  # they did run beside the writes


def test_filtered_reads_see_whole_writes(index: Index, engine: str) -> None:
    schema = {"version": AttributeType.INT}
    index.create(CollectionSpec("photos", 2, Metric.INNER_PRODUCT, "", schema))
    write(index, 0)
    finished = threading.Event()
    query = np.array([[1, 0]], np.float32)

    def read(first: int) -> int:
        reads = 0
        while not finished.is_set():
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
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, first) for first in (0, WRITES // 2)]
        try:
            for version in range(1, WRITES + 1):
                write(index, version)
        finally:
            finished.set()
        assert all(reader.result() > 3 for reader in readers)


def test_nobody_sees_neither_or_both_of_a_replacement(index: Index) -> None:
    def make(name: str, version: int) -> None:
        index.create(CollectionSpec(name, 2, Metric.INNER_PRODUCT, ""))
        index.upsert(
            name,
            [Item(f"id-{n}", np.array([version, 1], np.float32), {"version": version}) for n in range(40)],
        )

    make("photos", 0)
    finished = threading.Event()

    def read() -> int:
        reads = 0
        while not finished.is_set():
            check_search(index, 1)
            assert index.count("photos") == len(GROUP)
            names = [info.spec.name for info in index.list_collections()]
            assert names in (["photos"], ["new", "photos"])
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for version in range(1, 21):
                make("new", version)
                index.replace("photos", "new")
                assert check_search(index, 1) == [version]
        finally:
            finished.set()
        assert all(reader.result() > 3 for reader in readers)


def test_what_was_deleted_is_never_found_again(index: Index) -> None:
    index.create(CollectionSpec("photos", 2, Metric.L2, ""))
    deleted: set[str] = set()
    finished = threading.Event()

    def read() -> int:
        searches = 0
        while not finished.is_set():
            gone = set(deleted)
            for count in (10, 1000):
                [neighbors] = index.search("photos", np.zeros((1, 2), np.float32), count)
                assert gone.isdisjoint(neighbor.id for neighbor in neighbors)
            searches += 1
        return searches

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for start in range(0, 20 * WRITES, 20):
                ids = [str(n) for n in range(start, start + 20)]
                index.upsert("photos", [Item(name, np.array([int(name), 0], np.float32)) for name in ids])
                assert index.delete("photos", ids[:19]) == 19
                deleted.update(ids[:19])
        finally:
            finished.set()
        assert all(reader.result() > 3 for reader in readers)
    assert index.count("photos") == WRITES


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
