"""Retrieval over gRPC for benchmarks: ready-made messages out, replies kept and read afterwards."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
import uvloop
from fovea.v1 import model_pb2
from fovea.v1 import retrieval_pb2 as pb
from numpy.typing import NDArray

from benchmarks.raw_load import channel_options

COLLECTION = "benchmark"
TIMEOUT_S = 120.0
_SERVICE = "/fovea.v1.RetrievalService/"


@dataclass(frozen=True)
class Answers:
    """Of a closed loop.

    Attributes:
        per_s: messages answered per second.
        replies: by number of the message sent, the last one.
        latencies_s: of each call, in the order of their ends.
    """

    per_s: float
    replies: dict[int, bytes]
    latencies_s: list[float]


def call(address: str, method: str, message: Any, reply_type: Any) -> Any:
    """One call."""
    with grpc.insecure_channel(address, options=channel_options(0)) as channel:
        sent: Any = channel.unary_unary(_SERVICE + method)
        return reply_type.FromString(sent(message.SerializeToString(), timeout=TIMEOUT_S))


def search_message(queries: NDArray[np.float32], top_k: int, bucket: int | None = None) -> bytes:
    """A search by vectors, of the items in one bucket."""
    message = pb.SearchRequest(collection=COLLECTION, top_k=top_k)
    for query in queries:
        message.queries.add(vector=model_pb2.Vector(values=query.tolist()))
    if bucket is not None:
        message.filter.equals.attribute = "bucket"
        message.filter.equals.value.int_value = bucket
    return message.SerializeToString()


def upsert_message(first: int, vectors: NDArray[np.float32], buckets: Sequence[int] | None = None) -> bytes:
    """An upsert of items whose ids are numbers from `first` on."""
    message = pb.UpsertRequest(collection=COLLECTION)
    for number, vector in enumerate(vectors):
        item = message.items.add(id=str(first + number), vector=model_pb2.Vector(values=vector.tolist()))
        if buckets is not None:
            item.attributes["bucket"].int_value = buckets[number]
    return message.SerializeToString()


def ids_in(reply: bytes) -> list[list[int]]:
    """Of each query."""
    results = pb.SearchResponse.FromString(reply).results
    failed = [result.error.message for result in results if result.HasField("error")]
    if failed:
        raise SystemExit(f"a search failed: {failed[0]}")
    return [[int(neighbor.id) for neighbor in result.neighbors.neighbors] for result in results]


def upsert_all(address: str, bodies: Iterator[bytes], callers: int = 2) -> None:
    """Send them all, some at a time."""

    async def send() -> None:
        async with _channel(address) as channel:
            method: Any = channel.unary_unary(_SERVICE + "Upsert")

            async def work() -> None:
                for body in bodies:
                    reply = pb.UpsertResponse.FromString(await method(body, timeout=TIMEOUT_S))
                    failed = [result.error.message for result in reply.results if result.HasField("error")]
                    if failed:
                        raise SystemExit(f"an upsert failed: {failed[0]}")

            await asyncio.gather(*(work() for _ in range(callers)))

    uvloop.run(send())


def closed_loop(address: str, bodies: Sequence[bytes], callers: int, seconds: float) -> Answers:
    """`callers` callers search; each calls again as soon as it is answered, with the next message."""

    async def measure() -> Answers:
        async with _channel(address) as channel:
            method: Any = channel.unary_unary(_SERVICE + "Search")
            replies: dict[int, bytes] = {}
            latencies: list[float] = []
            numbers = iter(range(10**9))
            end = time.monotonic() + seconds

            async def work() -> None:
                while (begun := time.monotonic()) < end:
                    number = next(numbers) % len(bodies)
                    replies[number] = await method(bodies[number], timeout=TIMEOUT_S)
                    latencies.append(time.monotonic() - begun)

            started = time.monotonic()
            await asyncio.gather(*(work() for _ in range(callers)))
            return Answers(len(latencies) / (time.monotonic() - started), replies, latencies)

    return uvloop.run(measure())


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=channel_options(0))
