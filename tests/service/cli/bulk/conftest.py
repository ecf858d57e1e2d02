"""A collection for each test, and what the server embedded."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from fovea import Client, NotFound

from tests.servers import ServerProcess

_numbers = itertools.count()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """For what no command does."""
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def collection(client: Client) -> Iterator[str]:
    """The name of one that is not there yet, and goes with the test."""
    name = f"bulk-{next(_numbers)}"
    yield name
    for each in (name, f"{name}-2"):
        try:
            client.drop_collection(each)
        except NotFound:
            continue


@pytest.fixture
def embedded(server: ServerProcess) -> Callable[[], int]:
    """How many images the server has embedded since the last call."""
    before = _embedded(server)

    def since() -> int:
        nonlocal before
        last, before = before, _embedded(server)
        return before - last

    return since


def _embedded(server: ServerProcess) -> int:
    samples = server.metrics()
    return round(samples.get('fovea_images_total{code="OK",model="colors"}', 0))
