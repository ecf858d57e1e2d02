"""The gallery over a real index: one transaction a request, deadlines, and counts checked first."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from fovea.v1 import retrieval_pb2 as pb

from service.config import Config
from service.errors import DeadlineExpired, InvalidRequest, RequestError, VectorMismatch
from service.gallery import Gallery, NewItem
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.repository import ModelRepository
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric
from service.servicers import retrieval as servicer
from tests.packages import write_colors

SPEC = CollectionSpec("photos", 2, Metric.COSINE, "")


class CountingIndex(EmbeddedIndex):
    """Also keeps the size of each write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.writes: list[int] = []

    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        self.writes.append(len(items))
        super().upsert(collection, items)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CountingIndex]:
    index = CountingIndex(tmp_path / "index")
    index.create(SPEC)
    yield index
    index.close()


@pytest.fixture
async def gallery(tmp_path: Path, index: CountingIndex) -> AsyncIterator[Gallery]:
    """Without a loaded model."""
    write_colors(tmp_path / "models")
    config, metrics = Config(model_repository=tmp_path / "models"), Metrics()
    pipeline = Pipeline(config, metrics, lambda error: type(error).__name__)
    gallery = Gallery(index, pipeline, ModelRepository(config, metrics), config, metrics)
    yield gallery
    assert gallery.close()
    assert pipeline.close(1)


def new_item(name: str, *values: float) -> NewItem:
    return NewItem(name, np.array(values, np.float32), {})


def in_a_minute() -> float:
    return asyncio.get_running_loop().time() + 60


async def test_the_good_items_of_a_request_are_one_write(gallery: Gallery, index: CountingIndex) -> None:
    items = [new_item(str(n), 1, n) for n in range(200)]
    items[3] = new_item("zero", 0, 0)
    items[77] = new_item("", 1, 1)
    items[150] = new_item("other", 1, 2, 3)
    items[151] = NewItem("failed", InvalidRequest("before"), {})
    items[199] = new_item("nan", 1, np.nan)
    errors, model = await gallery.upsert("photos", items, "", in_a_minute())
    assert model is None
    assert {i: type(error) for i, error in enumerate(errors) if error} == {
        3: InvalidRequest,
        77: InvalidRequest,
        150: VectorMismatch,
        151: InvalidRequest,
        199: InvalidRequest,
    }
    assert index.writes == [195]
    assert index.count("photos") == 195


async def test_a_request_of_only_bad_items_writes_nothing(gallery: Gallery, index: CountingIndex) -> None:
    errors, _ = await gallery.upsert("photos", [new_item("", 1, 1), new_item("a", 0, 0)], "", in_a_minute())
    assert [type(error) for error in errors] == [InvalidRequest] * 2
    assert index.writes == []


async def test_good_queries_are_answered_beside_bad_ones(gallery: Gallery) -> None:
    await gallery.upsert("photos", [new_item(str(n), 1, n) for n in range(5)], "", in_a_minute())
    queries = [np.array(values, np.float32) for values in ([1, 0], [0, 0], [1, 2, 3], [0, 1])]
    answers, _ = await gallery.search("photos", queries, 1, "", in_a_minute())
    found = [answer if isinstance(answer, RequestError) else answer[0].id for answer in answers]
    assert found[0] == "0"
    assert str(found[1]).startswith("the query is zero")
    assert str(found[2]) == "the query has dimension 3; collection photos has 2"
    assert found[3] == "4"
    answers, _ = await gallery.search("photos", queries[1:3], 1, "", in_a_minute())
    assert [type(answer) for answer in answers] == [InvalidRequest, VectorMismatch]


async def test_nothing_is_written_once_the_deadline_has_passed(
    gallery: Gallery, index: CountingIndex
) -> None:
    ids = [str(n) for n in range(100)]
    await gallery.upsert("photos", [new_item(name, 1, 1) for name in ids], "", in_a_minute())
    passed = asyncio.get_running_loop().time()
    for name in ids:
        with pytest.raises(DeadlineExpired):
            await gallery.delete("photos", [name], passed)
        with pytest.raises(DeadlineExpired):
            await gallery.upsert("photos", [new_item(f"new {name}", 1, 1)], "", passed)
    await gallery.delete("photos", ["nobody"], in_a_minute())  # what was begun before it has ended now
    assert index.count("photos") == 100
    assert index.get("photos", ids)[-1].id == "99"


async def test_too_many_are_refused_before_any_is_translated(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def translate(_: object) -> NoReturn:
        raise AssertionError("translated")

    monkeypatch.setattr(servicer, "_new_item", translate)
    monkeypatch.setattr(servicer, "_query", translate)
    retrieval = servicer.RetrievalServicer(gallery, Config())
    context: Any = None  # not looked at
    for count in (0, 257):
        message = f"the request has {count} (items|queries); expected 1 to 256"
        with pytest.raises(InvalidRequest, match=message):
            await retrieval.Upsert(pb.UpsertRequest(items=[pb.UpsertItem()] * count), context)
        with pytest.raises(InvalidRequest, match=message):
            await retrieval.Search(pb.SearchRequest(queries=[pb.SearchQuery()] * count), context)
