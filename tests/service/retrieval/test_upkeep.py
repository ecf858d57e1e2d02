"""The switch between tiers behind running searches and writes, and that closing and dropping end it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from service.errors import CollectionNotFound, Unavailable
from service.retrieval import tier, upkeep
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions
from service.retrieval.stopping import Stop, Stopped
from tests.client.waiting import until
from tests.service.retrieval.clusters import DIMENSION, drawn, nearest, recall

MIN_TIER_ROWS = 600
VECTORS = drawn(4000, 1)
# So many that recall is told within half a point, whichever rows the margins were measured on.
QUERIES = drawn(500, 2)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    index = EmbeddedIndex(tmp_path / "index", max_segment_rows=500, min_tier_rows=MIN_TIER_ROWS)
    index.create(CollectionSpec("photos", DIMENSION, Metric.COSINE, ""))
    yield index
    index.close()


def put(index: EmbeddedIndex, start: int, stop: int) -> None:
    index.upsert("photos", [Item(str(n), VECTORS[n]) for n in range(start, stop)])


def index_type(index: EmbeddedIndex) -> str:
    [info] = index.list_collections()
    assert index.describe("photos") == info
    return info.index_type


def found(index: EmbeddedIndex, wanted: float = 0.98) -> list[list[str]]:
    options = SearchOptions(recall=wanted)
    return [[n.id for n in line] for line in index.search("photos", QUERIES, 10, options=options)]


def test_the_tier_comes_and_goes_with_the_size(index: EmbeddedIndex) -> None:
    put(index, 0, MIN_TIER_ROWS - 1)
    index.flush("photos")
    assert index_type(index) == "flat"
    put(index, MIN_TIER_ROWS - 1, 1000)
    until(lambda: index_type(index) == "1-bit")
    index.delete("photos", [str(n) for n in range(650)])
    index.flush("photos")
    assert index_type(index) == "1-bit"  # 350 are more than half of 600
    index.delete("photos", [str(n) for n in range(650, 720)])
    until(lambda: index_type(index) == "flat")
    assert recall(found(index), nearest(VECTORS[720:1000], Metric.COSINE, QUERIES, 10)) == 0  # other ids
    truth = [
        [str(int(name) + 720) for name in ids]
        for ids in nearest(VECTORS[720:1000], Metric.COSINE, QUERIES, 10)
    ]
    assert found(index) == truth


def test_searches_see_every_write_through_all_switches(index: EmbeddedIndex) -> None:
    """A row is found as soon as its write returns, however the tier changes behind it."""
    put(index, 0, 500)
    finished = threading.Event()
    written = [500]

    def read() -> int:
        rounds = 0
        while not finished.is_set():
            count = written[0]
            chosen = np.random.default_rng(count).integers(count - 100, count, 8)
            for number, line in zip(chosen, index.search("photos", VECTORS[chosen], 1), strict=True):
                assert [n.id for n in line] == [str(number)]
            rounds += 1
        return rounds

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for start in range(500, 4000, 100):
                put(index, start, start + 100)
                written[0] = start + 100
            until(lambda: index_type(index) == "1-bit")
        finally:
            finished.set()
        assert all(reader.result() > 3 for reader in readers)
    index.flush("photos")
    assert recall(found(index), nearest(VECTORS, Metric.COSINE, QUERIES, 10)) >= 0.98
    assert found(index, 1.0) == nearest(VECTORS, Metric.COSINE, QUERIES, 10)


def test_searches_and_writes_go_on_while_a_tier_is_made(
    index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = tier.renewed

    def slow(*arguments: Any) -> tier.Tier:
        begun.set()
        assert go_on.wait(20)
        return real(*arguments)

    monkeypatch.setattr(upkeep, "renewed", slow)
    put(index, 0, 1000)
    assert begun.wait(20)
    put(index, 1000, 1100)
    assert index.delete("photos", ["5"]) == 1
    kept = np.arange(1100) != 5
    assert found(index) == nearest(VECTORS[:1100], Metric.COSINE, QUERIES, 10, kept)
    assert index_type(index) == "flat"
    go_on.set()
    until(lambda: index_type(index) == "1-bit")
    assert recall(found(index), nearest(VECTORS[:1100], Metric.COSINE, QUERIES, 10, kept)) >= 0.98
    assert all("5" not in ids for ids in found(index))


@pytest.mark.parametrize("end", ["close", "drop"])
def test_closing_and_dropping_call_it_off(
    index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    begun, called_off = threading.Event(), threading.Event()

    def endless(before: object, segments: object, metric: object, stopped: Stop) -> object:
        begun.set()
        until(stopped)
        called_off.set()
        raise Stopped

    monkeypatch.setattr(upkeep, "renewed", endless)
    put(index, 0, 1000)
    assert begun.wait(20)
    if end == "close":
        index.close()
    else:
        index.drop("photos")
        with pytest.raises(CollectionNotFound):
            index.describe("photos")
    assert called_off.wait(20)


def test_a_flush_is_called_off_by_closing(index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(before: object, segments: object, metric: object, stopped: Stop) -> object:
        begun.set()
        until(stopped)
        raise Stopped

    monkeypatch.setattr(upkeep, "renewed", endless)
    put(index, 0, 1000)
    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(index.flush, "photos")
        assert begun.wait(20)
        index.close()
        with pytest.raises(Unavailable, match="closed"):
            flushing.result(20)


def test_an_error_in_the_background_leaves_the_collection_searchable(
    index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*arguments: object) -> object:
        failed.set()
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "renewed", fail)
        put(index, 0, 1000)
        assert failed.wait(20)
        assert found(index) == nearest(VECTORS[:1000], Metric.COSINE, QUERIES, 10)
    index.flush("photos")
    assert index_type(index) == "1-bit"


@pytest.mark.parametrize("change", ["rename", "replace"])
def test_a_tier_is_told_of_by_the_name_that_the_collection_has(index: EmbeddedIndex, change: str) -> None:
    if change == "rename":
        index.rename("photos", "new")
    else:
        index.create(CollectionSpec("new", DIMENSION, Metric.COSINE, ""))
        index.replace("new", "photos")
    structlog.reset_defaults()
    with capture_logs() as lines:
        index.upsert("new", [Item(str(n), VECTORS[n]) for n in range(1000)])
        index.flush("new")
    made = [line for line in lines if line["event"] == "search_tier_made"]
    assert [line["collection"] for line in made] == ["new"]


def test_long_vectors_are_compared_exactly(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path, min_tier_rows=256)
    index.create(CollectionSpec("long", 4097, Metric.L2, ""))
    index.upsert("long", [Item(str(n), vector) for n, vector in enumerate(drawn(300, 1, dimension=4097))])
    index.flush("long")
    assert index.describe("long").index_type == "flat"
    index.close()


def test_too_small_a_threshold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="min_tier_rows is 255; expected at least 256"):
        EmbeddedIndex(tmp_path, min_tier_rows=255)
    EmbeddedIndex(tmp_path, min_tier_rows=256).close()
