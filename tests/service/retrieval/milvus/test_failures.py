"""What becomes of calls when Milvus is gone, or back again, or has forgotten something."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.errors import CollectionNotFound, IndexUnusable, StartError, Unavailable
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions
from service.retrieval.milvus import reading, search
from service.retrieval.milvus.engine import MilvusIndex
from service.retrieval.milvus.table import METRICS
from tests.service.retrieval.milvus import server
from tests.service.retrieval.milvus.conftest import Opener

SPEC = CollectionSpec("photos", 2, Metric.L2, "")


def items(*names: str) -> list[Item]:
    return [Item(name, np.full(2, number, np.float32)) for number, name in enumerate(names)]


@pytest.fixture
def own() -> Iterator[server.Milvus]:
    """A server that the test may kill."""
    own = server.Milvus(standalone=False)
    yield own
    own.stop()


def test_a_server_that_is_not_there_is_named_at_the_start() -> None:
    with pytest.raises(StartError, match=r"Milvus at http://127\.0\.0\.1:1, namespace fovea: ") as caught:
        MilvusIndex("http://u:hunter2@127.0.0.1:1", connect_timeout_s=0.5)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_was_acknowledged_survives_the_servers_death(own: server.Milvus, open_index: Opener) -> None:
    index = open_index(own.url, call_timeout_s=0.5)
    index.create(SPEC)
    index.upsert("photos", items("a", "b"))
    index.delete("photos", ["a"])
    own.kill()
    for call in (lambda: index.upsert("photos", items("c")), lambda: index.count("photos")):
        with pytest.raises(Unavailable, match="Milvus at unix:"):
            call()
    own.start()
    other = open_index(own.url)
    assert [item.id for item in other.scan("photos")] == ["b"]
    for _ in range(20):  # the connection is tried anew after a while
        try:
            index.upsert("photos", items("d"))
            break
        except Unavailable:
            pass
    assert [item.id for item in other.scan("photos")] == ["b", "d"]


def test_after_close_calls_are_refused(open_index: Opener) -> None:
    index = open_index()
    index.close()
    with pytest.raises(Unavailable, match="the index is closed"):
        index.list_collections()
    index.close()


def test_a_collection_that_was_released_is_loaded(open_index: Opener, client: Any, namespace: str) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert("photos", items("a"))
    for name in client.list_collections():
        if name.startswith(namespace):
            client.release_collection(name)
    assert index.count("photos") == 1


def test_what_milvus_refuses_is_told_and_leaves_nothing(
    open_index: Opener, client: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_index()
    monkeypatch.setitem(METRICS, Metric.L2, "NONSENSE")
    with pytest.raises(IndexUnusable, match=r"Milvus at unix:.*create_index: .*NONSENSE"):
        index.create(SPEC)
    assert index.list_collections() == []
    assert not [name for name in client.list_collections() if name.startswith(f"{namespace}__c_")]


def test_a_collection_that_somebody_dropped_is_not_there(
    open_index: Opener, client: Any, namespace: str
) -> None:
    index = open_index()
    index.create(SPEC)
    [name] = [name for name in client.list_collections() if name.startswith(f"{namespace}__c_")]
    for alias in client.list_aliases(name)["aliases"]:
        client.drop_alias(alias)
    client.drop_collection(name)
    with pytest.raises(CollectionNotFound, match="there are: none"):
        index.upsert("photos", items("a"))
    index.create(SPEC)
    assert index.count("photos") == 0


def test_a_write_of_several_messages(open_index: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.retrieval.milvus.writing._MAX_BYTES", 300)
    index = open_index()
    index.create(SPEC)
    names = [f"{n:03}" for n in range(50)]
    index.upsert("photos", items(*names))
    assert [item.id for item in index.scan("photos")] == names


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ROWS", 16)


@pytest.mark.usefixtures("small_pages")
def test_items_beyond_a_page_come_in_the_order_of_writing_and_none_is_missed(open_index: Opener) -> None:
    index = open_index()
    index.create(SPEC)
    names = [f"{n * 37 % 101:03}" for n in range(100)]
    for start in range(0, 100, 20):
        index.upsert("photos", items(*names[start : start + 20]))
    with index.items("photos") as pages:
        assert [item.id for page in pages for item in page] == names
    with index.items("photos") as pages:
        seen = [item.id for item in next(pages)]
        index.upsert("photos", items("new", names[0], names[99]))
        index.delete("photos", [names[50]])
        seen += [item.id for page in pages for item in page]
    assert set(seen) == {*names, "new"} - {names[50]}
    assert seen[-3:] == ["new", names[0], names[99]]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("index_type", ["flat", "hnsw"])
def test_the_nearest_beyond_what_milvus_ranks(
    open_index: Opener, index_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are read; 90 are equally near, and come in the order of writing."""
    monkeypatch.setattr(search, "_MAX_LIMIT", 32)
    index = open_index(index_type=index_type)
    index.create(SPEC)
    names = [f"{n * 37 % 101:03}" for n in range(90)]
    index.upsert("photos", [Item(name, np.ones(2, np.float32)) for name in names])
    index.upsert("photos", [Item("far", np.full(2, 9, np.float32)), Item("here", np.zeros(2, np.float32))])
    exact = SearchOptions(recall=1)
    for top_k, options in ((60, exact), (5, exact), (100, exact), (60, SearchOptions())):
        [found] = index.search("photos", np.zeros((1, 2), np.float32), top_k, options=options)
        assert [neighbor.id for neighbor in found] == ["here", *names, "far"][:top_k]
