"""A client of the shared server."""

from collections.abc import Iterator

import pytest
from fovea import Client

from tests.servers import ServerProcess


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """For threads, with the defaults."""
    with Client(server.address) as connected:
        yield connected
