"""What gRPC itself can do: servers that give back the bytes they get, in each of the ways in.

Run as a child of a benchmark: prints its address and echoes until SIGTERM. `--io` chooses the server and its
loop (http2: Fovea's own, on uvloop); each method of `/fovea.benchmarks.Echo/` is a way to handle a call.
"""

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import uvloop
from fovea.v1 import classification_pb2 as pb

from benchmarks.child_server import serve
from service.http2.limits import Limits
from service.http2.server import Http2Server

SERVICE = "fovea.benchmarks.Echo"
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]
_THREADS = 32
Context = grpc.aio.ServicerContext[Any, Any]


def method(name: str) -> str:
    """A way's full name on the wire."""
    return f"/{SERVICE}/{name}"


async def _unary(request: bytes, _: Context) -> bytes:
    return request


async def _typed(request: pb.ClassifyRequest, _: Context) -> pb.ClassifyRequest:
    return request


async def _metadata(request: bytes, context: Context) -> bytes:
    context.invocation_metadata()
    context.time_remaining()
    context.set_trailing_metadata((("x-request-id", "0123456789abcdef"),))
    return request


async def _read_by_hand(_: AsyncIterator[bytes], context: Context) -> bytes:
    request: bytes = await context.read()
    return request


async def _read_by_iterator(requests: AsyncIterator[bytes], _: Context) -> bytes:
    async for request in requests:
        last = request
    return last


async def _stream_iterate_yield(requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _stream_iterate_write(requests: AsyncIterator[bytes], context: Context) -> None:
    async for request in requests:
        await context.write(request)


async def _stream_read_write(_: AsyncIterator[bytes], context: Context) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


def _handlers() -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
    unary, mixed = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    both = grpc.stream_stream_rpc_method_handler
    return {
        "Unary": unary(_unary),
        "Typed": unary(
            _typed,
            request_deserializer=pb.ClassifyRequest.FromString,
            response_serializer=pb.ClassifyRequest.SerializeToString,
        ),
        "Metadata": unary(_metadata),
        "ReadByHand": mixed(_read_by_hand),
        "ReadByIterator": mixed(_read_by_iterator),
        "StreamIterateYield": both(_stream_iterate_yield),
        "StreamIterateWrite": both(_stream_iterate_write),
        "StreamReadWrite": both(_stream_read_write),
    }


class _Rewrap(grpc.aio.ServerInterceptor):
    """Wraps the handler anew for each call, as interceptors commonly do."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        behavior: Any = handler.unary_unary

        async def wrapped(request: Any, context: Any) -> Any:
            return await behavior(request, context)

        return grpc.unary_unary_rpc_method_handler(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


class _Cached(_Rewrap):
    """Wraps each method's handler once."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any] | None] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        name = handler_call_details.method
        if name not in self._handlers:
            self._handlers[name] = await super().intercept_service(continuation, handler_call_details)
        return self._handlers[name]


async def _serve(interceptors: list[grpc.aio.ServerInterceptor]) -> None:
    server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    await serve(server, SERVICE, _handlers())


async def _serve_by_http2() -> None:
    limits = Limits(message_bytes=64 * 1024 * 1024, concurrent_calls=1_000)
    await serve(Http2Server(limits), SERVICE, _handlers())


def _serve_by_threads() -> None:
    def echo(request: bytes, _: grpc.ServicerContext) -> bytes:
        return request

    def echo_stream(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        return requests

    # Blocked before any thread is made, so that none of them gets the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo),
        "StreamIterateYield": grpc.stream_stream_rpc_method_handler(echo_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(0.5).wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--io", choices=("asyncio", "uvloop", "threads", "http2"), default="asyncio")
    parser.add_argument("--interceptor", choices=("none", "rewrap", "cached"), default="none")
    options = parser.parse_args()
    if options.io == "threads":
        _serve_by_threads()
        return
    if options.io == "http2":
        uvloop.run(_serve_by_http2())
        return
    kinds: dict[str, list[grpc.aio.ServerInterceptor]] = {
        "none": [],
        "rewrap": [_Rewrap()],
        "cached": [_Cached()],
    }
    run = uvloop.run if options.io == "uvloop" else asyncio.run
    run(_serve(kinds[options.interceptor]))


if __name__ == "__main__":
    main()
