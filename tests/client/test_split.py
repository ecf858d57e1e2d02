"""Batches of several requests: each has the whole timeout, and a later one's failure costs no results."""

import time
from collections.abc import Iterator
from typing import Any

import fovea
import grpc
import numpy as np
import pytest
from fovea import AsyncClient, Client, Item

from tests.client.faulty_proxy import faulty
from tests.client.pictures import BROKEN, of_class
from tests.packages import LABELS
from tests.servers import ServerProcess


def codes(results: list[fovea.Classification | fovea.FoveaError]) -> list[str]:
    """Each result's label, or its error's code."""
    return [result.code if isinstance(result, fovea.FoveaError) else result.label for result in results]


def test_each_request_has_the_whole_timeout(server: ServerProcess) -> None:
    def source() -> Iterator[Any]:
        yield of_class(0)
        time.sleep(3)
        yield of_class(1)

    with faulty(server) as proxy, Client(proxy.address, max_images=1) as client:
        assert codes(client.classify_batch(source(), timeout=60)) == ["red", "green"]
    assert proxy.left_s[1] is not None
    assert proxy.left_s[1] > 60 - 2.9


async def test_so_it_has_with_asyncio(server: ServerProcess) -> None:
    class Slow:
        """A vector that takes its time."""

        def __array__(self, *_: Any, **__: Any) -> Any:
            time.sleep(3)
            return quick

    quick = np.ones(2, np.float32)
    with faulty(server) as proxy:
        async with AsyncClient(proxy.address, max_images=1) as client:
            await client.create_collection("slow", dimension=2)
            try:
                items = [Item("a", vector=quick), Item("b", vector=Slow())]
                results = await client.upsert("slow", items, timeout=60)
            finally:
                await client.drop_collection("slow")
    assert [result.error for result in results] == [None, None]
    assert proxy.left_s[2] is not None
    assert proxy.left_s[2] > 60 - 2.9


def test_a_later_failure_stands_with_all_that_is_left(server: ServerProcess, client: Client) -> None:
    client.create_collection("split")
    items = [Item(f"{i}", image=of_class(i)) for i in range(70)]
    items[3] = Item("3", image="no/such/file.png")
    items[33] = Item("33", image=BROKEN[:0])  # sent, and answered by nobody
    items[34] = Item("34", image="no/such/file.png")
    try:
        with faulty(server, 9, after=2) as proxy, Client(proxy.address, max_images=16, retries=0) as through:
            results = through.upsert("split", items)
            assert proxy.attempts == 3
        assert client.count("split") == 31
    finally:
        client.drop_collection("split")
    assert [result.id for result in results] == [item.id for item in items]
    kinds = [type(result.error) for result in results]
    assert kinds[:32] == [fovea.InvalidImage if i == 3 else type(None) for i in range(32)]
    assert kinds[32:] == [fovea.InvalidImage if i == 34 else fovea.Unavailable for i in range(32, 70)]


def test_every_value_has_its_place_however_the_bytes_fall(server: ServerProcess) -> None:
    """The third request is cut by its bytes, with one image more already read; the source is a generator."""
    images = [of_class(i, size=8 if i < 2 else 120) for i in range(9)]
    with (
        faulty(server, 9, grpc.StatusCode.INTERNAL, after=2) as proxy,
        Client(proxy.address, max_images=2, max_message_bytes=65536) as client,
    ):
        results = client.classify_batch(image for image in images)
        assert proxy.attempts == 3
    assert codes(results) == [LABELS[0], LABELS[1], LABELS[2], *["INTERNAL"] * 6]


def test_the_first_failure_is_raised(server: ServerProcess) -> None:
    images: list[Any] = ["no/such/file.png", "no/such/file.png", *(of_class(i) for i in range(4))]
    with (
        faulty(server, 9) as proxy,
        Client(proxy.address, max_images=2, retries=0) as client,
        pytest.raises(fovea.Unavailable),
    ):
        client.classify_batch(images)
    assert proxy.attempts == 1


async def test_asyncio_does_the_same(server: ServerProcess) -> None:
    images = [of_class(i) for i in range(11)]
    with faulty(server, 9, after=2) as proxy:
        async with AsyncClient(proxy.address, max_images=4, retries=0) as client:
            results = await client.classify_batch(images)
            assert proxy.attempts == 3
            assert codes(results) == [*(LABELS[i % 3] for i in range(8)), *["UNAVAILABLE"] * 3]
            with pytest.raises(fovea.Unavailable):
                await client.classify_batch(images)
