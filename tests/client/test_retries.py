"""What is tried again, and what is not: through a proxy that fails the first calls."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import fovea
import grpc
import pytest
from fovea import AsyncClient, Client, Item

from tests.client.pictures import of_class
from tests.servers import ServerProcess


class FaultyProxy(grpc.GenericRpcHandler):
    """Passes unary calls on to the real server as they are, after failing the first of them.

    Attributes:
        attempts: calls seen so far.
        address: where it listens.
    """

    def __init__(
        self, target: str, failures: int, code: grpc.StatusCode, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self.attempts = 0
        self.address = ""
        self._lock = threading.Lock()
        self._failures = failures
        self._code = code
        self._metadata = metadata
        self._channel = grpc.insecure_channel(target)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        def handle(request: bytes, context: "grpc.ServicerContext") -> bytes:
            with self._lock:
                self.attempts += 1
                fails = self.attempts <= self._failures
            if fails:
                context.set_trailing_metadata(self._metadata)
                context.abort(self._code, "a fault on purpose")
            forward: Any = self._channel.unary_unary(handler_call_details.method)
            reply: bytes = forward(request, timeout=30)
            return reply

        return grpc.unary_unary_rpc_method_handler(handle)

    @contextmanager
    def running(self) -> Iterator["FaultyProxy"]:
        """Listen on a free port."""
        server = grpc.server(
            futures.ThreadPoolExecutor(4),
            handlers=[self],
            options=[("grpc.max_receive_message_length", 32 * 1024 * 1024)],
        )
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield self
        finally:
            server.stop(None).wait()
            self._channel.close()


def faulty(
    server: ServerProcess,
    failures: int,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    push_back_ms: int | None = None,
) -> Any:
    """A running proxy in front of the server."""
    metadata = () if push_back_ms is None else (("grpc-retry-pushback-ms", str(push_back_ms)),)
    return FaultyProxy(server.address, failures, code, metadata).running()


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
            client.models(timeout=0.3)
        assert proxy.attempts == 1


async def test_the_asyncio_client_does_the_same(server: ServerProcess) -> None:
    with faulty(server, failures=2) as proxy:
        async with AsyncClient(proxy.address) as client:
            assert (await client.classify(of_class(2, size=1500))).label == "blue"
            assert proxy.attempts == 3
