"""Indexes on the shared milvus-lite, in a namespace for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymilvus")

from service.retrieval.milvus.engine import MilvusIndex
from tests.service.retrieval.milvus import server

Opener = Callable[..., MilvusIndex]


@pytest.fixture
def url() -> str:
    """Where the shared server is."""
    return server.lite().url


@pytest.fixture
def namespace(tmp_path: Path) -> str:
    """Of this test."""
    return server.namespace_of(tmp_path)


@pytest.fixture
def open_index(request: pytest.FixtureRequest, namespace: str) -> Iterator[Opener]:
    """Opens the test's namespace; may be called several times. All are closed in the end."""
    opened: list[MilvusIndex] = []

    def open_one(url: str = "", **settings: Any) -> MilvusIndex:
        address = url or request.getfixturevalue("url")
        opened.append(MilvusIndex(address, namespace=namespace, **settings))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Does in Milvus what others may, or what a crash leaves behind."""
    from pymilvus import MilvusClient

    client: Any = MilvusClient(url, dedicated=True)
    yield client
    client.close()
