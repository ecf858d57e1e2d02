"""A proxy that passes calls on to a real server, and fails some of them on purpose."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc

from tests.servers import ServerProcess


class FaultyProxy(grpc.GenericRpcHandler):
    """Passes unary calls on to the real server as they are, except those that it is to fail.

    Attributes:
        attempts: calls seen so far.
        left_s: the time that each of them still had, in seconds.
        address: where it listens.
    """

    def __init__(
        self, target: str, faults: range, code: grpc.StatusCode, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self.attempts = 0
        self.left_s: list[float | None] = []
        self.address = ""
        self._lock = threading.Lock()
        self._faults = faults
        self._code = code
        self._metadata = metadata
        self._channel = grpc.insecure_channel(target)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        def handle(request: bytes, context: "grpc.ServicerContext") -> bytes:
            with self._lock:
                fails = self.attempts in self._faults
                self.attempts += 1
                self.left_s.append(context.time_remaining())
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
    failures: int = 0,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    push_back_ms: int | None = None,
    *,
    after: int = 0,
) -> AbstractContextManager[FaultyProxy]:
    """A running proxy in front of the server that fails that many calls, `after` as many good ones."""
    metadata = () if push_back_ms is None else (("grpc-retry-pushback-ms", str(push_back_ms)),)
    return FaultyProxy(server.address, range(after, after + failures), code, metadata).running()
