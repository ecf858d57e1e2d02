"""What is tried again, and what is not: through a proxy that fails the first calls."""

import fovea
import grpc
import pytest
from fovea import AsyncClient, Client, Item

from tests.client.faulty_proxy import faulty
from tests.client.pictures import of_class
from tests.servers import ServerProcess


def test_reads_are_tried_again(server: ServerProcess) -> None:
    with faulty(server, failures=2) as proxy, Client(proxy.address) as client:
        assert client.model().name == "colors"
        assert proxy.attempts == 3


def test_so_are_photos_larger_than_grpcs_own_retry_buffer(server: ServerProcess) -> None:
    with faulty(server, failures=2) as proxy, Client(proxy.address) as client:
        assert client.classify(of_class(1, size=1500)).label == "green"  # 6.75 MB
        assert proxy.attempts == 3


def test_the_last_failure_is_raised(server: ServerProcess) -> None:
    with faulty(server, failures=9) as proxy, Client(proxy.address) as client:
        with pytest.raises(fovea.Unavailable, match="a fault on purpose"):
            client.models()
        assert proxy.attempts == 4


def test_none_when_none_are_wanted(server: ServerProcess) -> None:
    with faulty(server, failures=1) as proxy, Client(proxy.address, retries=0) as client:
        with pytest.raises(fovea.Unavailable):
            client.models()
        assert proxy.attempts == 1


def test_creating_and_dropping_are_not_tried_again(server: ServerProcess) -> None:
    for call in (Client.create_collection, Client.drop_collection):
        with faulty(server, failures=1) as proxy, Client(proxy.address) as client:
            with pytest.raises(fovea.Unavailable):
                call(client, "never")
            assert proxy.attempts == 1


def test_writing_by_id_is_tried_again(server: ServerProcess, client: Client) -> None:
    client.create_collection("retries")
    try:
        with faulty(server, failures=1) as proxy, Client(proxy.address) as through:
            assert through.upsert("retries", [Item("a", image=of_class(0))])[0].error is None
            assert proxy.attempts == 2
        assert client.count("retries") == 1
    finally:
        client.drop_collection("retries")


def test_other_errors_are_not_tried_again(server: ServerProcess) -> None:
    with faulty(server, 1, grpc.StatusCode.INTERNAL) as proxy, Client(proxy.address) as client:
        with pytest.raises(fovea.Internal, match="a fault on purpose"):
            client.models()
        assert proxy.attempts == 1


def test_an_overloaded_server_says_when_to_come_back(server: ServerProcess) -> None:
    overload = grpc.StatusCode.RESOURCE_EXHAUSTED
    with faulty(server, 2, overload, push_back_ms=1) as proxy, Client(proxy.address) as client:
        assert client.models()
        assert proxy.attempts == 3
    with faulty(server, 1, overload, push_back_ms=250) as proxy, Client(proxy.address, retries=0) as client:
        with pytest.raises(fovea.Overloaded) as caught:
            client.models()
        assert caught.value.retry_after_s == 0.25
    with faulty(server, 1, overload) as proxy, Client(proxy.address, retries=0) as client:
        with pytest.raises(fovea.ResourceExhausted) as caught_plain:
            client.models()
        assert type(caught_plain.value) is fovea.ResourceExhausted


def test_the_timeout_holds_over_all_attempts(server: ServerProcess) -> None:
    """The server asks for a minute of patience, which the caller doesn't have."""
    overload = grpc.StatusCode.RESOURCE_EXHAUSTED
    with faulty(server, 9, overload, push_back_ms=60_000) as proxy, Client(proxy.address) as client:
        with pytest.raises(fovea.DeadlineExceeded):
            client.models(timeout=3)
        assert proxy.attempts == 1


async def test_the_asyncio_client_does_the_same(server: ServerProcess) -> None:
    with faulty(server, failures=2) as proxy:
        async with AsyncClient(proxy.address) as client:
            assert (await client.classify(of_class(2, size=1500))).label == "blue"
            assert proxy.attempts == 3
