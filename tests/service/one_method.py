"""A server of one method behind the interceptor: for how calls begin and end, whatever they ask."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from service.arrivals import Arrivals
from service.http2.limits import Limits
from service.http2.server import Http2Server
from service.interceptors import RequestInterceptor
from service.metrics import Metrics

METHOD = "/fovea.v1.Test/Ask"


@asynccontextmanager
async def one_method(
    behave: Callable[[Any, Any], Any], patience_s: float, read: Callable[[bytes], Any] = lambda data: data
) -> AsyncIterator[Any]:
    """A channel, without serializers of its own, to a server of `METHOD`.

    Args:
        behave: what the method does; gives bytes.
        patience_s: how long the server waits for the message of a caller without a deadline.
        read: what `behave` gets of the message.
    """
    interceptor = RequestInterceptor(
        Metrics(), lambda *_: None, Arrivals(1_000_000, 100_000, 10), default_timeout_s=patience_s
    )
    server = Http2Server(Limits(message_bytes=100_000, concurrent_calls=10), interceptor.wrap)
    handler = grpc.unary_unary_rpc_method_handler(
        behave, request_deserializer=read, response_serializer=lambda data: data
    )
    _, service, name = METHOD.split("/")
    server.add_registered_method_handlers(service, {name: handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)
