"""Several servers on one Milvus, and what a crash leaves of a change of names."""

from typing import Any

import numpy as np
import pytest

from service.errors import CollectionExists, CollectionNotFound
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.milvus.engine import MilvusIndex
from service.retrieval.milvus.names import Names
from tests.service.retrieval.milvus.conftest import Opener

SPEC = CollectionSpec("a", 2, Metric.L2, "")


@pytest.fixture
def names(namespace: str) -> Names:
    return Names(namespace)


@pytest.fixture
def index(open_index: Opener) -> MilvusIndex:
    """With one collection, "a"."""
    index = open_index(index_type="flat")
    index.create(SPEC)
    index.upsert("a", [Item("1", np.zeros(2, np.float32))])
    return index


def there(index: MilvusIndex) -> list[str]:
    return [info.spec.name for info in index.list_collections()]


def in_milvus(client: Any, names: Names) -> list[str]:
    return [name for name in client.list_collections() if name.startswith(names.collection_prefix)]


def test_servers_see_each_others_changes_at_once(index: MilvusIndex, open_index: Opener) -> None:
    other = open_index()
    assert there(other) == ["a"]
    other.rename("a", "b")
    assert index.count("b") == 1
    with pytest.raises(CollectionExists):
        other.create(CollectionSpec("b", 3, Metric.L2, ""))
    other.create(CollectionSpec("c", 3, Metric.L2, ""))
    index.replace("b", "c")
    assert (there(other), other.describe("b").spec.dimension, other.count("b")) == (["b"], 3, 0)
    index.drop("b")
    with pytest.raises(CollectionNotFound, match="there are: none"):
        other.count("b")


def test_nothing_is_left_in_milvus(index: MilvusIndex, client: Any, names: Names) -> None:
    index.create(CollectionSpec("b", 2, Metric.L2, ""))
    index.replace("a", "b")
    index.rename("a", "c")
    [collection] = in_milvus(client, names)
    assert client.list_aliases(collection)["aliases"] == [names.alias("c")]
    index.drop("c")
    assert in_milvus(client, names) == []
    assert client.query(names.specs, filter='name > ""', output_fields=["name"]) == []


def test_a_taken_name_leaves_nothing_behind(index: MilvusIndex, client: Any, names: Names) -> None:
    with pytest.raises(CollectionExists, match="'a' exists already"):
        index.create(SPEC)
    index.create(CollectionSpec("b", 2, Metric.L2, ""))
    with pytest.raises(CollectionExists, match="'b' exists already"):
        index.rename("a", "b")
    assert len(in_milvus(client, names)) == 2
    assert there(index) == ["a", "b"]


def test_a_rename_that_broke_off_before_the_name_was_taken(
    index: MilvusIndex, client: Any, names: Names
) -> None:
    [collection] = in_milvus(client, names)
    client.create_alias(collection, names.alias("b", "t"))
    assert there(index) == ["a"]
    with pytest.raises(CollectionNotFound):
        index.count("b")
    index.create(CollectionSpec("b", 2, Metric.L2, ""))
    assert there(index) == ["a", "b"]
    index.rename("b", "c")
    index.rename("a", "b")
    assert [index.count(name) for name in ("b", "c")] == [1, 0]


@pytest.mark.parametrize("next_change", ["create", "rename", "replace", "drop"])
def test_a_rename_that_broke_off_after_it(
    index: MilvusIndex, client: Any, names: Names, next_change: str
) -> None:
    [collection] = in_milvus(client, names)
    client.create_alias(collection, names.alias("b", "t"))
    client.create_alias(collection, names.alias("b"))
    assert there(index) == ["b"]
    with pytest.raises(CollectionNotFound, match="'a'; there are: b"):
        index.count("a")
    if next_change == "create":
        index.create(SPEC)
        assert [index.count(name) for name in there(index)] == [0, 1]
    elif next_change == "rename":
        index.rename("b", "a")
        assert (there(index), index.count("a")) == (["a"], 1)
    elif next_change == "replace":
        index.create(CollectionSpec("c", 2, Metric.L2, ""))
        index.replace("c", "b")
        assert (there(index), index.count("c")) == (["c"], 1)
    else:
        index.drop("b")
        assert (there(index), in_milvus(client, names)) == ([], [])


def test_a_replacement_that_broke_off(
    index: MilvusIndex, client: Any, names: Names, open_index: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    [old] = in_milvus(client, names)
    index.create(CollectionSpec("b", 3, Metric.L2, ""))
    [new] = set(in_milvus(client, names)) - {old}
    client.create_alias(new, names.alias("a", "t"))
    assert there(index) == ["a", "b"]
    client.alter_alias(new, names.alias("a"))
    assert (there(index), index.count("a")) == (["a"], 0)
    assert in_milvus(client, names) == sorted([old, new])
    open_index()
    assert len(in_milvus(client, names)) == 2  # it may be one that is being made
    monkeypatch.setattr("service.retrieval.milvus.catalog._ORPHAN_S", 0)
    other = open_index()
    assert in_milvus(client, names) == [new]
    assert there(other) == ["a"]
