"""A gRPC server on loopback that answers as a test tells it to, and remembers what it was told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from fovea.v1 import classification_pb2

# The number of the call, from 0, and its context; returns without an answer of its own for the usual one.
Script = Callable[[int, Any], Awaitable[None]]


@dataclass
class ScriptedServer:
    """What the server met.

    Attributes:
        address: host:port.
        remaining_s: of each call, the deadline that it came with; None where there was none.
        timeouts_ms: of each message of a stream.
        peers: of each call, the connection it came over.
        cancelled: calls whose caller left before the answer.
    """

    address: str = ""
    remaining_s: list[float | None] = field(default_factory=list)
    timeouts_ms: list[int] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    cancelled: int = 0


def answer(images: int) -> classification_pb2.ClassifyResponse:
    """One class for each image."""
    reply = classification_pb2.ClassifyResponse()
    for _ in range(images):
        reply.results.add().classification.classes.add(label="hen", probability=1.0)
    return reply


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncIterator[ScriptedServer]:
    """Serve Classify and ClassifyStream."""
    met = ScriptedServer()

    async def classify(request: classification_pb2.ClassifyRequest, context: Any) -> Any:
        number = len(met.remaining_s)
        met.remaining_s.append(context.time_remaining())
        met.peers.append(context.peer())
        try:
            await script(number, context)
        except asyncio.CancelledError:
            met.cancelled += 1
            raise
        return answer(len(request.images))

    async def classify_stream(requests: Any, context: Any) -> Any:
        met.peers.append(context.peer())
        async for request in requests:
            number = len(met.timeouts_ms)
            met.timeouts_ms.append(request.timeout_ms)
            await script(number, context)
            yield classification_pb2.ClassifyStreamResponse(
                id=request.id, response=answer(len(request.request.images))
            )

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {
        "Classify": grpc.unary_unary_rpc_method_handler(
            classify,
            request_deserializer=classification_pb2.ClassifyRequest.FromString,
            response_serializer=classification_pb2.ClassifyResponse.SerializeToString,
        ),
        "ClassifyStream": grpc.stream_stream_rpc_method_handler(
            classify_stream,
            request_deserializer=classification_pb2.ClassifyStreamRequest.FromString,
            response_serializer=classification_pb2.ClassifyStreamResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("fovea.v1.ClassificationService", handlers),)
    )
    met.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield met
    finally:
        await server.stop(None)
