"""The client for asyncio, against a real server."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import AsyncClient, Item, Query, aio

from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class
from tests.client.waiting import eventually
from tests.packages import LABELS, colors_logits
from tests.servers import ServerProcess


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    """For asyncio, with the defaults."""
    async with AsyncClient(server.address) as connected:
        yield connected


def label(result: fovea.Classification | fovea.FoveaError) -> str:
    """Its label, or its error's code."""
    return result.code if isinstance(result, fovea.FoveaError) else result.label


def test_has_every_method_of_the_other_client() -> None:
    def names(client: type) -> set[str]:
        return {name for name in dir(client) if not name.startswith("_")}

    assert names(AsyncClient) == names(fovea.Client)
    assert aio.Client is AsyncClient


async def test_classifies_and_embeds(client: AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    path.write_bytes(file_bytes(of_class(1)))
    assert (await client.classify(path)).label == "green"
    embedding = await client.embed(of_class(2))
    np.testing.assert_allclose(embedding.vector, expected_embedding(of_class(2)), rtol=1e-5)
    results = await client.classify_batch([of_class(0), BROKEN, tmp_path / "absent.png", of_class(2)])
    assert [label(each) for each in results] == ["red", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "blue"]
    assert len(await client.embed_batch([of_class(i) for i in range(70)])) == 70


async def test_errors_are_typed(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(fovea.InvalidImage):
        await client.classify(BROKEN)
    with pytest.raises(FileNotFoundError):
        await client.classify(tmp_path / "absent.png")
    with pytest.raises(fovea.NotFound, match="colors") as caught:
        await client.model("missing")
    assert caught.value.request_id


async def test_a_passed_timeout_is_deadline_exceeded(silent_address: str) -> None:
    async with AsyncClient(silent_address) as client:
        with pytest.raises(fovea.DeadlineExceeded):
            await client.models(timeout=0.05)


async def test_64_callers_get_their_own_results(client: AsyncClient) -> None:
    images = [of_class(i, 100 + i) for i in range(64)]
    results = await asyncio.gather(*(client.classify(image, include_logits=True) for image in images))
    for image, result in zip(images, results, strict=True):
        assert result.logits is not None
        np.testing.assert_allclose(result.logits, colors_logits(image), rtol=1e-5)


async def test_models_and_health(client: AsyncClient) -> None:
    assert await client.model() in await client.models()
    assert await client.ready("colors")
    await client.wait_until_ready(timeout=10)
    with pytest.raises(fovea.NotFound, match="no model 'missing'"):
        await client.ready("missing")
    async with AsyncClient("127.0.0.1:1") as nobody:
        assert not await nobody.ready()
        with pytest.raises(fovea.DeadlineExceeded, match="no server was ready"):
            await nobody.wait_until_ready(timeout=0.2)


async def test_retrieval(client: AsyncClient) -> None:
    made = await client.create_collection("aio", metric="inner_product")
    try:
        assert made == await client.collection("aio")
        items = [Item(name, image=of_class(i), attributes={"n": i}) for i, name in enumerate("rgb")]
        results = await client.upsert("aio", [*items, Item("bad", image=BROKEN)])
        assert [result.error is None for result in results] == [True, True, True, False]
        assert (await client.search("aio", image=of_class(1), top_k=1))[0].id == "g"
        first, second = await client.search_batch("aio", [Query(id="r"), Query(image=BROKEN)])
        assert isinstance(first, list)
        assert isinstance(second, fovea.InvalidArgument)
        assert [item.id for item in await client.get("aio", ["b", "x"])] == ["b"]
        assert await client.delete("aio", ["b", "x"]) == 1
        assert await client.count("aio") == 2
        assert "aio" in [each.name for each in await client.collections()]
        many = [Item(f"{i}", vector=np.ones(24)) for i in range(300)]
        await client.upsert("aio", many)
        ids = [item.id for item in many]
        assert [item.id for item in await client.get("aio", ids)] == ids
        assert await client.delete("aio", ids) == 300
    finally:
        await client.drop_collection("aio")


async def test_streams_take_both_kinds_of_iterables(client: AsyncClient) -> None:
    images: list[Any] = [of_class(i) for i in range(100)]
    expected = [LABELS[i % 3] for i in range(100)]
    images[50], expected[50] = BROKEN, "INVALID_ARGUMENT"
    images[51], expected[51] = "no/such/file.png", "INVALID_ARGUMENT"

    async def source() -> AsyncIterator[Any]:
        for image in images:
            await asyncio.sleep(0)
            yield image

    for several in (images, source()):
        results = client.classify_stream(several, batch_size=7, window=2)
        assert [label(each) async for each in results] == expected
    vectors = [each async for each in client.embed_stream(images[:3])]
    assert isinstance(vectors[2], fovea.Embedding)
    np.testing.assert_allclose(vectors[2].vector, expected_embedding(images[2]), rtol=1e-5)


async def test_a_stream_reads_no_further_ahead_than_the_window(client: AsyncClient) -> None:
    pulled = 0

    def source() -> Iterator[Any]:
        nonlocal pulled
        for i in range(60):
            pulled += 1
            yield of_class(i)

    taken = 0
    async for _ in client.classify_stream(source(), batch_size=2, window=3):
        taken += 1
        assert pulled <= (taken - 1) // 2 * 2 + 2 * 3
    assert taken == pulled == 60


async def test_an_abandoned_stream_is_cancelled(server: ServerProcess, client: AsyncClient) -> None:
    def ended() -> float:
        counted = (item for item in server.metrics().items() if item[0].startswith("fovea_requests_total"))
        return sum(value for name, value in counted if "ClassifyStream" in name)

    before = ended()
    source_closed = asyncio.Event()

    async def endless() -> AsyncIterator[Any]:
        try:
            for i in itertools.count():
                yield of_class(i)
        finally:
            source_closed.set()

    results = client.classify_stream(endless(), batch_size=1)
    assert [label(await anext(results)) for _ in range(3)] == ["red", "green", "blue"]
    await results.aclose()
    async with asyncio.timeout(30):
        await source_closed.wait()
    assert await asyncio.to_thread(eventually, lambda: ended() == before + 1)


async def test_what_the_source_raises_comes_through_after_its_results(client: AsyncClient) -> None:
    async def source() -> AsyncIterator[Any]:
        yield of_class(0)
        raise LookupError("the camera is gone")

    results = client.classify_stream(source(), batch_size=1)
    assert label(await anext(results)) == "red"
    with pytest.raises(LookupError, match="the camera is gone"):
        await anext(results)


@pytest.mark.parametrize(
    "failure",
    [asyncio.CancelledError("its own"), SystemExit(3), KeyboardInterrupt(), RuntimeError()],
)
async def test_nor_is_anything_else_that_it_raises_lost(client: AsyncClient, failure: BaseException) -> None:
    async def source() -> AsyncIterator[Any]:
        yield of_class(0)
        await asyncio.sleep(0)
        raise failure

    def plain() -> Iterator[Any]:
        yield of_class(0)
        raise failure

    for several in (source(), plain()):
        results = client.classify_stream(several, batch_size=1)
        assert label(await anext(results)) == "red"
        async with asyncio.timeout(30):  # a stream that waits for ever shows as TimeoutError
            with pytest.raises(type(failure)) as caught:
                await anext(results)
        assert caught.value is failure


async def test_a_stream_to_nobody_is_unavailable_while_the_source_is_silent() -> None:
    async def silent() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield of_class(0)

    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(fovea.Unavailable):
            await anext(client.classify_stream(silent()))


async def test_a_cancelled_call_ends(client: AsyncClient) -> None:
    call = asyncio.create_task(client.classify_batch([of_class(i) for i in range(2000)]))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await client.classify(of_class(1))).label == "green"
