"""A peer that is gone without a word is noticed, and servers don't hang up on us for asking."""

import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest
from fovea import AsyncClient, Client
from fovea._channel import channel_options

from tests.servers import ServerProcess

# gRPC servers tolerate a ping every 5 minutes.
TOLERATED_MS = 300_000


def unacknowledged_ms(address: str) -> list[int]:
    """For each of this process's connections there: how long sent bytes may stay unacknowledged."""
    port = int(address.rpartition(":")[2])
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            connection = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:  # closed meanwhile, or no socket
            continue
        with connection, contextlib.suppress(OSError):
            # gRPC's own sockets are IPv6, with 127.0.0.1 written as ::ffff:127.0.0.1.
            if connection.family != socket.AF_UNIX and connection.getpeername()[1] == port:
                found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def test_pings_are_sent_but_no_more_often_than_servers_tolerate() -> None:
    options = dict(channel_options(2**20, retries=3))
    assert TOLERATED_MS < int(options["grpc.keepalive_time_ms"]) <= 2 * TOLERATED_MS


@pytest.mark.skipif(sys.platform != "linux", reason="finds its sockets in /proc")
async def test_a_dead_peer_is_noticed_within_seconds(server: ServerProcess) -> None:
    before = unacknowledged_ms(server.address)
    with Client(server.address) as client:
        client.models()
        async with AsyncClient(server.address) as other:
            await other.models()
            connections = unacknowledged_ms(server.address)
    assert len(connections) > len(before)
    assert set(connections) == {20_000}
