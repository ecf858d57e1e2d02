"""A client of the shared server."""

import socket
from collections.abc import Iterator

import pytest
from fovea import Client

from tests.servers import ServerProcess


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """For threads, with the defaults."""
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
