"""Filters, search options, scans, streams of items and upkeep through both clients, against a real server."""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import AsyncClient, Client, GroupBy, Item, Query, QueryExpansion, attribute

from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class
from tests.packages import LABELS
from tests.servers import ServerProcess

ATTRIBUTES: dict[str, fovea.AttributeType] = {"label": "string", "number": "int", "uri": "string"}
NUMBER = attribute("number")


def item(number: int) -> Item:
    """A picture of class `number` modulo 3, brighter the higher the number."""
    label = LABELS[number % 3]
    image = of_class(number, 60 + 6 * number)
    return Item(f"{number:03}", image=image, attributes={"label": label, "number": number, "free": 0.5})


@pytest.fixture
def name(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of 30 pictures with declared attributes."""
    name = request.node.name.partition("[")[0]
    client.create_collection(name, attributes=ATTRIBUTES)
    assert not [result for result in client.upsert(name, map(item, range(30))) if result.error]
    yield name
    client.drop_collection(name)


@pytest.fixture
async def aio(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    """The client for asyncio."""
    async with AsyncClient(server.address) as connected:
        yield connected


def ids(found: Any) -> list[str]:
    return [each.id for each in found]


def test_collections_say_what_they_declare(client: Client, name: str) -> None:
    found = client.collection(name)
    assert (found.attributes, found.storage, found.index_type) == (ATTRIBUTES, "float32", "flat")
    made = client.create_collection("halves", dimension=2, storage="float16")
    try:
        assert (made.storage, made.attributes) == ("float16", {})
    finally:
        client.drop_collection("halves")
    with pytest.raises(ValueError, match="storage is 'int8'; expected one of float32, float16"):
        client.create_collection("never", storage="int8")
    with pytest.raises(
        ValueError, match="'a' is declared as 'text'; expected one of string, int, float, bool"
    ):
        client.create_collection("never", attributes={"a": "text"})  # type: ignore[dict-item] # the mistake that is tested


def test_filters_in_every_call_that_takes_one(client: Client, name: str) -> None:
    condition = (NUMBER >= 10) & ~attribute("label").is_in(["red", "green"])
    kept = [f"{number:03}" for number in range(10, 30) if number % 3 == 2]
    assert client.count(name, filter=condition) == len(kept)
    assert ids(client.scan(name, filter=condition)) == kept
    found = client.search(name, image=of_class(2), filter=condition, top_k=100)
    assert sorted(ids(found)) == kept
    (batch,) = client.search_batch(name, [Query(id="000")], filter=condition, top_k=100)
    assert sorted(ids(batch)) == kept
    assert client.delete(name, filter=condition) == len(kept)
    assert client.count(name) == 30 - len(kept)
    with pytest.raises(fovea.InvalidArgument, match="'free'; expected one that the collection declares"):
        client.count(name, filter=attribute("free") == 0.5)


def test_what_to_delete_is_said_once(client: Client, name: str) -> None:
    with pytest.raises(ValueError, match="give either ids or filter="):
        client.delete(name)
    with pytest.raises(ValueError, match="give either ids or filter="):
        client.delete(name, ["000"], filter=NUMBER == 1)
    assert client.delete(name, []) == 0
    assert client.delete(name, ["000"]) == 1


def test_search_options(client: Client, name: str) -> None:
    image = of_class(1, 140)
    everything = client.search(name, image=image, top_k=30)
    floor = everything[9].score
    assert ids(client.search(name, image=image, top_k=30, min_score=floor)) == ids(everything[:10])
    assert ids(client.search(name, image=image, top_k=5, offset=5)) == ids(everything[5:10])
    firsts = client.search(name, image=image, group_by="label")
    assert sorted(str(each.attributes["label"]) for each in firsts) == sorted(LABELS)
    assert firsts[0] == everything[0]
    twice = client.search(name, image=image, group_by=GroupBy("label", 2))
    assert len(twice) == 6
    assert ids(client.search(name, image=image, recall=1.0)) == ids(everything[:10])

    query = expected_embedding(image)
    nearest = everything[:2]
    total = query + sum(
        each.score**1.0 * expected_embedding(of_class(n := int(each.id), 60 + 6 * n)) for each in nearest
    )
    expanded = client.search(name, image=image, expansion=QueryExpansion(2, 1.0), top_k=1)
    best = int(expanded[0].id)
    expected = expected_embedding(of_class(best, 60 + 6 * best)) @ (total / np.linalg.norm(total))
    assert expanded[0].score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"offset": -1}, ValueError, "offset is -1"),
        ({"recall": 0.0}, ValueError, "recall is 0.0"),
        ({"group_by": GroupBy("label", 0)}, ValueError, "max_per_group is 0"),
        ({"expansion": QueryExpansion(0)}, ValueError, "neighbors is 0"),
        ({"expansion": QueryExpansion(1, -1.0)}, fovea.InvalidArgument, "alpha -1.0; expected 0 or more"),
        ({"filters": None}, TypeError, "unexpected keyword argument 'filters'"),
        ({"filter": "number > 3"}, TypeError, "expected a filter"),
    ],
)
def test_wrong_options_are_told(
    client: Client, name: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        client.search(name, id="000", **options)


def test_many_expanded_queries_are_split_below_the_servers_limit(client: Client, name: str) -> None:
    found = client.search_batch(
        name, [Query(id="000")] * 25, top_k=1, expansion=QueryExpansion(1000)
    )  # 25,000 of 10,000
    assert [isinstance(each, list) for each in found] == [True] * 25


def test_scan_reads_page_by_page(client: Client, name: str) -> None:
    found = list(client.scan(name, page_size=7, include_vectors=True))
    assert ids(found) == [f"{number:03}" for number in range(30)]
    assert found[7].vector is not None
    np.testing.assert_allclose(found[7].vector, expected_embedding(of_class(1, 102)), rtol=1e-5)
    pages = client.scan(name, page_size=7)
    assert next(pages).vector is None
    client.delete(name, [f"{number:03}" for number in range(5, 20)])
    assert ids(pages) == ["001", "002", "003", "004", "005", "006"] + [f"{n:03}" for n in range(20, 30)]
    with pytest.raises(ValueError, match="page_size is 0"):
        next(client.scan(name, page_size=0))


def test_a_stream_of_items(client: Client, name: str, tmp_path: Path) -> None:
    read = itertools.count()

    def items() -> Iterator[Item]:
        for number in read:
            if number == 100:
                return
            yield item(number) if number != 41 else Item("bad", image=BROKEN)
            if number == 70:
                yield Item("gone", image=tmp_path / "absent.png")

    results = list(client.upsert_stream(name, items()))
    expected = [f"{number:03}" if number != 41 else "bad" for number in range(100)]
    expected.insert(71, "gone")
    assert ids(results) == expected
    assert {result.id: type(result.error) for result in results if result.error} == {
        "bad": fovea.InvalidImage,
        "gone": fovea.InvalidImage,
    }
    assert client.count(name) == 99


def test_a_stream_reads_no_further_than_its_window(client: Client, name: str) -> None:
    taken: list[int] = []

    def items() -> Iterator[Item]:
        for number in itertools.count():
            taken.append(number)
            yield item(number % 30)

    results = client.upsert_stream(name, items(), batch_size=4, window=2)
    for _ in range(12):
        assert next(results).error is None
    results.close()
    assert len(taken) <= 12 + 3 * 4
    assert client.count(name) == 30


def test_a_stream_takes_vectors_of_one_model(client: Client, name: str) -> None:
    mine = client.embed(of_class(0))
    results = list(client.upsert_stream(name, [Item("a", vector=mine), Item("b", vector=mine.vector)]))
    assert [result.error for result in results] == [None, None]
    other = fovea.Embedding(mine.vector, "another's", "another", "1")
    (refused,) = client.upsert_stream(name, [Item("c", vector=other)])
    assert isinstance(refused.error, fovea.FailedPrecondition)
    with pytest.raises(ValueError, match="different models"):
        list(client.upsert_stream(name, [Item("d", vector=mine), Item("e", vector=other)]))


def test_a_failure_of_the_callers_items_is_raised(client: Client, name: str) -> None:
    def items() -> Iterator[Item]:
        yield item(0)
        raise ZeroDivisionError("my own")

    with pytest.raises(ZeroDivisionError, match="my own"):
        list(client.upsert_stream(name, items()))


def test_snapshots(client: Client, name: str) -> None:
    client.flush(name)
    before = list(client.scan(name, include_vectors=True))
    written = client.snapshot(name, f"{name}-1")
    assert written.name == f"{name}-1"
    assert abs(datetime.now(UTC) - written.created) < timedelta(minutes=5)
    assert written in client.snapshots()
    with pytest.raises(fovea.AlreadyExists):
        client.snapshot(name, f"{name}-1")
    made = client.restore(f"{name}-1", "copy")
    try:
        assert (made.name, made.count, made.model) == ("copy", 30, "colors")
        after = list(client.scan("copy", include_vectors=True))
        assert [(each.id, each.attributes) for each in after] == [
            (each.id, each.attributes) for each in before
        ]
        np.testing.assert_array_equal([each.vector for each in after], [each.vector for each in before])
        with pytest.raises(fovea.AlreadyExists, match="'copy'"):
            client.restore(f"{name}-1", "copy")
        with pytest.raises(fovea.NotFound, match=f"{name}-1"):
            client.restore("no-such")
    finally:
        client.drop_collection("copy")


@pytest.fixture
def photos(client: Client, image_root: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Three pictures that lie where the server may open them, and one that doesn't."""
    name = f"{request.node.name}-photos"
    client.create_collection(name, model="broken", attributes={"uri": "string"})
    items = []
    for number in range(3):
        path = image_root / f"{name}-{number}.png"
        path.write_bytes(file_bytes(of_class(number)))
        items.append(Item(f"{number}", image=path, attributes={"uri": str(path)}))
    items.append(Item("outside", image=of_class(0), attributes={"uri": "/etc/hostname"}))
    assert not [result for result in client.upsert(name, items) if result.error]
    yield name
    client.drop_collection(name)


def test_reembedding(client: Client, photos: str) -> None:
    assert client.collection(photos).model == "broken"
    with pytest.raises(fovea.InvalidArgument, match="item 'outside': '/etc/hostname' lies outside"):
        list(client.reembed(photos))
    assert client.collection(photos).model == "broken"
    steps = list(client.reembed(photos, model="colors", skip_broken=True))
    assert [(step.done, step.total) for step in steps] == [(0, 4), (4, 4), (4, 4)]
    (skipped,) = [result for step in steps for result in step.skipped]
    assert skipped.id == "outside"
    assert isinstance(skipped.error, fovea.InvalidArgument)
    assert [step.collection is None for step in steps] == [True, True, False]
    assert client.collection(photos) == steps[-1].collection
    assert (client.collection(photos).model, client.count(photos)) == ("colors", 3)
    with pytest.raises(fovea.NotFound, match="colors"):
        list(client.reembed(photos, model="nobody's"))


async def test_the_same_for_asyncio(aio: AsyncClient, name: str, photos: str) -> None:
    condition = NUMBER < 3
    assert await aio.count(name, filter=condition) == 3
    assert [each.id async for each in aio.scan(name, filter=condition, page_size=2)] == ["000", "001", "002"]
    found = await aio.search(name, id="000", filter=condition, group_by="label", offset=1)
    assert len(found) == 1
    (batch,) = await aio.search_batch(name, [Query(id="000")], filter=condition)
    assert len(batch) == 2  # type: ignore[arg-type] # no error
    assert await aio.delete(name, filter=condition) == 3
    await aio.flush(name)

    async def items() -> AsyncIterator[Item]:
        for number in range(40):
            yield item(number)
        yield Item("bad", image=BROKEN)

    results = [result async for result in aio.upsert_stream(name, items(), batch_size=8)]
    assert ids(results) == [*(f"{number:03}" for number in range(40)), "bad"]
    assert [result.id for result in results if result.error] == ["bad"]
    plain = [result async for result in aio.upsert_stream(name, [item(0), item(1)])]
    assert ids(plain) == ["000", "001"]

    snapshot = await aio.snapshot(name, f"{name}-aio")
    assert snapshot in await aio.snapshots()
    made = await aio.restore(snapshot.name, "aio-copy")
    await aio.drop_collection("aio-copy")
    assert made.count == 40
    steps = [step async for step in aio.reembed(photos, model="colors", skip_broken=True)]
    assert steps[-1].collection is not None
    assert steps[-1].collection.model == "colors"
    created = await aio.create_collection("aio", dimension=2, attributes={"a": "int"}, storage="float16")
    await aio.drop_collection("aio")
    assert (created.attributes, created.storage) == ({"a": "int"}, "float16")
