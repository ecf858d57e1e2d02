"""Items of the gallery: one transaction a request, deadlines, and counts checked first."""

import asyncio
from typing import Any, NoReturn

import numpy as np
import pytest
from fovea.v1 import retrieval_pb2 as pb

from service.config import Config
from service.errors import CollectionNotFound, DeadlineExpired, InvalidRequest, RequestError, VectorMismatch
from service.gallery.gallery import Gallery
from service.gallery.items import NewItem
from service.gallery.searches import Search
from service.gallery.writes import Replaced
from service.retrieval.filters import Equals
from service.retrieval.index import CollectionSpec, Metric
from service.retrieval.schema import AttributeType
from service.servicers import retrieval as servicer
from tests.service.gallery.conftest import CountingIndex, in_a_minute

SPEC = CollectionSpec("photos", 2, Metric.COSINE, "", {"even": AttributeType.BOOL})


@pytest.fixture(autouse=True)
def photos(index: CountingIndex) -> None:
    """An empty collection."""
    index.create(SPEC)


def new_item(name: str, *values: float, **attributes: bool) -> NewItem:
    return NewItem(name, np.array(values, np.float32), attributes)


async def test_the_good_items_of_a_request_are_one_write(gallery: Gallery, index: CountingIndex) -> None:
    items = [new_item(str(n), 1, n) for n in range(200)]
    items[3] = new_item("zero", 0, 0)
    items[77] = new_item("", 1, 1)
    items[150] = new_item("other", 1, 2, 3)
    items[151] = NewItem("failed", InvalidRequest("before"), {})
    items[199] = new_item("nan", 1, np.nan)
    written = await gallery.items.upsert("photos", items, "", in_a_minute())
    assert written.model is None
    assert {i: type(error) for i, error in enumerate(written.errors) if error} == {
        3: InvalidRequest,
        77: InvalidRequest,
        150: VectorMismatch,
        151: InvalidRequest,
        199: InvalidRequest,
    }
    assert index.writes == [195]
    assert index.count("photos") == 195


async def test_an_image_where_callers_bring_vectors_fails_alone(
    gallery: Gallery, index: CountingIndex
) -> None:
    items = [new_item("a", 1, 1), new_item("b", 1, 2, 3), NewItem("c", b"image", {}), new_item("d", 1, 2)]
    errors = (await gallery.items.upsert("photos", items, "", in_a_minute())).errors
    assert [type(error) for error in errors] == [type(None), VectorMismatch, VectorMismatch, type(None)]
    words = (
        "collection photos takes its callers' own vectors only, of dimension 2, not images: no model made it"
    )
    assert str(errors[2]) == words
    assert index.writes == [2]
    wanted = Search("photos", [b"image", np.array([1, 1], np.float32)], 1)
    image, vector = (await gallery.searches.search(wanted, in_a_minute())).answers
    assert isinstance(image, VectorMismatch)
    assert str(image) == words
    assert isinstance(vector, list)
    assert vector[0].id == "a"


async def test_images_for_a_model_that_is_missing_fail_the_request(
    gallery: Gallery, index: CountingIndex
) -> None:
    index.create(CollectionSpec("other", 2, Metric.COSINE, "mine"))
    items = [new_item("a", 1, 1), NewItem("c", b"image", {})]
    with pytest.raises(VectorMismatch, match="of fingerprint 'mine', and no loaded model makes these"):
        await gallery.items.upsert("other", items, "", in_a_minute())
    assert index.writes == []


async def test_a_request_of_only_bad_items_writes_nothing(gallery: Gallery, index: CountingIndex) -> None:
    bad = [new_item("", 1, 1), new_item("a", 0, 0)]
    written = await gallery.items.upsert("photos", bad, "", in_a_minute())
    assert [type(error) for error in written.errors] == [InvalidRequest] * 2
    assert index.writes == []


async def test_good_queries_are_answered_beside_bad_ones(gallery: Gallery) -> None:
    await gallery.items.upsert("photos", [new_item(str(n), 1, n) for n in range(5)], "", in_a_minute())
    queries = [np.array(values, np.float32) for values in ([1, 0], [0, 0], [1, 2, 3], [0, 1])]
    answers = (await gallery.searches.search(Search("photos", queries, 1), in_a_minute())).answers
    found = [answer if isinstance(answer, RequestError) else answer[0].id for answer in answers]
    assert found[0] == "0"
    assert str(found[1]).startswith("the query is zero")
    assert str(found[2]) == "the query has dimension 3; collection photos has 2"
    assert found[3] == "4"
    answers = (await gallery.searches.search(Search("photos", queries[1:3], 1), in_a_minute())).answers
    assert [type(answer) for answer in answers] == [InvalidRequest, VectorMismatch]


async def test_nothing_is_written_once_the_deadline_has_passed(
    gallery: Gallery, index: CountingIndex
) -> None:
    ids = [str(n) for n in range(100)]
    await gallery.items.upsert("photos", [new_item(name, 1, 1) for name in ids], "", in_a_minute())
    passed = asyncio.get_running_loop().time()
    for name in ids:
        with pytest.raises(DeadlineExpired):
            await gallery.items.delete("photos", [name], passed)
        with pytest.raises(DeadlineExpired):
            await gallery.items.upsert("photos", [new_item(f"new {name}", 1, 1)], "", passed)
    await gallery.items.delete("photos", ["nobody"], in_a_minute())  # what was begun before it has ended now
    assert index.count("photos") == 100
    assert index.get("photos", ids)[-1].id == "99"


async def test_too_many_are_refused_before_any_is_translated(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def translate(_: object) -> NoReturn:
        raise AssertionError("translated")

    monkeypatch.setattr(servicer, "new_item", translate)
    monkeypatch.setattr(servicer, "query_of", translate)
    retrieval = servicer.RetrievalServicer(gallery, Config(), asyncio.Event())
    context: Any = None  # not looked at
    for count in (0, 257):
        message = f"the request has {count} (items|queries); expected 1 to 256"
        with pytest.raises(InvalidRequest, match=message):
            await retrieval.Upsert(pb.UpsertRequest(items=[pb.UpsertItem()] * count), context)
        with pytest.raises(InvalidRequest, match=message):
            await retrieval.Search(pb.SearchRequest(queries=[pb.SearchQuery()] * count), context)


async def test_what_was_prepared_for_another_collection_is_not_written(
    gallery: Gallery, index: CountingIndex
) -> None:
    items = [new_item("a", 1, 1)]
    prepared = await gallery.items.prepare("photos", items, "", in_a_minute())
    await gallery.collections.drop("photos", in_a_minute())
    other = CollectionSpec("photos", 2, Metric.L2, "another model's")
    await gallery.collections.create(other, in_a_minute())
    with pytest.raises(Replaced):
        await gallery.items.commit(prepared, in_a_minute())
    assert index.count("photos") == 0
    await gallery.items.upsert("photos", items, "", in_a_minute())  # prepared anew
    assert index.count("photos") == 1


async def test_a_page_says_whether_there_are_more(gallery: Gallery) -> None:
    names = [f"{n:03}" for n in range(10)]
    items = [new_item(name, 1, n, even=n % 2 == 0) for n, name in enumerate(names)]
    await gallery.items.upsert("photos", items, "", in_a_minute())

    async def scan(after: str, limit: int, condition: Equals | None = None) -> tuple[list[str], bool]:
        found, more = await gallery.items.scan(
            "photos", after, limit, condition, in_a_minute(), include_vectors=True
        )
        assert all(item.vector.shape == (2,) for item in found)
        return [item.id for item in found], more

    assert await scan("", 9) == (names[:9], True)
    assert await scan("", 10) == (names, False)
    assert await scan("004", 3) == (names[5:8], True)
    assert await scan("009", 3) == ([], False)
    assert await scan("", 5, Equals("even", True)) == (names[::2], False)
    assert await scan("", 4, Equals("even", True)) == (names[:8:2], True)


async def test_collections_that_are_being_built_are_nobodys(gallery: Gallery, index: CountingIndex) -> None:
    hidden = "fovea-building.0.x"
    index.create(CollectionSpec(hidden, 2, Metric.L2, ""))
    assert [info.spec.name for info in await gallery.collections.list_all(in_a_minute())] == ["photos"]
    calls = [
        gallery.collections.describe(hidden, in_a_minute()),
        gallery.collections.drop(hidden, in_a_minute()),
        gallery.collections.flush(hidden, in_a_minute()),
        gallery.items.upsert(hidden, [new_item("a", 1, 1)], "", in_a_minute()),
        gallery.items.delete(hidden, ["a"], in_a_minute()),
        gallery.items.delete_matching(hidden, Equals("even", True), in_a_minute()),
        gallery.items.get(hidden, ["a"], in_a_minute(), include_vectors=False),
        gallery.items.count(hidden, None, in_a_minute()),
        gallery.items.scan(hidden, "", 1, None, in_a_minute(), include_vectors=False),
        gallery.searches.search(Search(hidden, [np.ones(2, np.float32)], 1), in_a_minute()),
    ]
    for call in calls:
        with pytest.raises(CollectionNotFound, match="fovea-building"):
            await call
    with pytest.raises(InvalidRequest, match="the server's own"):
        await gallery.collections.create(CollectionSpec(hidden, 2, Metric.L2, ""), in_a_minute())
