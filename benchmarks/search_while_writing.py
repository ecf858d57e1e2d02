"""Searches over gRPC while 1,000 vectors a second are written to the same collection.

    python -m benchmarks.search_while_writing

The server has one core, both clients another. Searches of one query come in an open loop, at random moments
(Poisson), and each is timed from when it was due. So do writes, in messages of 50 items, of which every
second replaces items that are there. Rounds without and with writes take turns; each percentile is that of
all rounds of a kind.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import uvloop
from fovea.v1 import retrieval_pb2 as pb

from benchmarks import retrieval_wire as wire
from benchmarks.clustered import DIMENSION, Clusters
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import pinned_server
from benchmarks.raw_load import channel_options
from benchmarks.retrieval_data import TOP_K
from benchmarks.tiny_model import write_tiny

ROWS = 100_000
SEARCHES_PER_S, WRITTEN_PER_S = 100, 1000
ITEMS_PER_MESSAGE = 50
_SEARCH, _UPSERT = "/fovea.v1.RetrievalService/Search", "/fovea.v1.RetrievalService/Upsert"


def main() -> None:
    """Measure, print, exit by the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--round-s", type=float, default=15.0)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of few rows, which prints no figure"
    )
    options = parser.parse_args()
    rows, rounds, seconds = (6_000, 1, 2.0) if options.quick else (ROWS, options.rounds, options.round_s)
    core, client_core = cores()
    os.sched_setaffinity(0, {client_core})
    clusters = Clusters()
    searches = [wire.search_message(query[None], TOP_K) for query in clusters.drawn(512, 2)]
    quiet: list[float] = []
    writing: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        write_tiny(repository)
        with pinned_server(repository, "--index-path", str(Path(folder) / "index"), core=core) as server:
            fill(server.address, clusters, rows)
            written = rows
            for number in range(rounds):
                flush(server.address)  # else the round before would still be worked on
                quiet += uvloop.run(round_of(server.address, searches, [], seconds))
                writes = write_messages(clusters, rows, written, seconds, number)
                written += len(writes) * ITEMS_PER_MESSAGE // 2
                writing += uvloop.run(round_of(server.address, searches, writes, seconds))
                print(f"round {number + 1}: {told(quiet)} quiet, {told(writing)} while writing", flush=True)
            count = wire.call(
                server.address, "Count", pb.CountRequest(collection=wire.COLLECTION), pb.CountResponse
            ).count
    if count != written:
        raise SystemExit(f"{count:,} items are there; expected {written:,}")
    p99 = [1000 * float(np.percentile(latencies, 99)) for latencies in (quiet, writing)]
    print(
        f"{rows:,} × {DIMENSION}, {SEARCHES_PER_S} searches/s, {WRITTEN_PER_S:,} vectors written/s by "
        f"{ITEMS_PER_MESSAGE}; p99 {p99[0]:.2f} ms quiet, {p99[1]:.2f} ms while writing; one core; "
        f"{describe()}"
    )
    conclude(
        Figure("search_while_writing_p99_ratio", p99[1] / p99[0], 2.0, at_most=True), quick=options.quick
    )


def told(latencies_s: list[float]) -> str:
    """Percentiles."""
    p50, p99 = 1000 * np.percentile(latencies_s, [50, 99])
    return f"p50 {p50:.2f} p99 {p99:.2f} ms"


def fill(address: str, clusters: Clusters, rows: int) -> None:
    """Make the collection."""
    request = pb.CreateCollectionRequest(collection=wire.COLLECTION)
    request.external.dimension = DIMENSION
    wire.call(address, "CreateCollection", request, pb.CreateCollectionResponse)
    vectors = clusters.drawn(rows, 1)
    parts = (slice(start, start + 200) for start in range(0, rows, 200))
    wire.upsert_all(address, (wire.upsert_message(part.start, vectors[part]) for part in parts))


def flush(address: str) -> None:
    """Have the server finish what it does in the background."""
    wire.call(address, "Flush", pb.FlushRequest(collection=wire.COLLECTION), pb.FlushResponse)


def write_messages(clusters: Clusters, rows: int, written: int, seconds: float, seed: int) -> list[bytes]:
    """Of a round: new items, and others in the place of old ones, by turns."""
    count = int(seconds * WRITTEN_PER_S / ITEMS_PER_MESSAGE) // 2 * 2
    vectors = clusters.drawn(count * ITEMS_PER_MESSAGE, 10 + seed).reshape(
        count, ITEMS_PER_MESSAGE, DIMENSION
    )
    random = np.random.default_rng(seed)
    messages = []
    for number, part in enumerate(vectors):
        new = number % 2 == 0
        first = (
            written + number // 2 * ITEMS_PER_MESSAGE if new else random.integers(0, rows - ITEMS_PER_MESSAGE)
        )
        messages.append(wire.upsert_message(int(first), part))
    return messages


async def round_of(address: str, searches: list[bytes], writes: list[bytes], seconds: float) -> list[float]:
    """Latencies of the searches in seconds, from when each was due."""
    latencies: list[float] = []
    async with (
        grpc.aio.insecure_channel(address, options=channel_options(0)) as reading,
        grpc.aio.insecure_channel(address, options=channel_options(1)) as writing,
    ):
        search: Any = reading.unary_unary(_SEARCH)
        upsert: Any = writing.unary_unary(_UPSERT)
        for body in searches[:20]:  # connected, and warm
            await search(body, timeout=wire.TIMEOUT_S)
        random = np.random.default_rng(len(writes))
        started = time.monotonic() + 0.1

        async def find(number: int, due: float) -> None:
            await asyncio.sleep(due - time.monotonic())
            reply = await search(searches[number % len(searches)], timeout=wire.TIMEOUT_S)
            latencies.append(time.monotonic() - due)
            wire.ids_in(reply)

        async def write(body: bytes, due: float) -> None:
            await asyncio.sleep(due - time.monotonic())
            reply = pb.UpsertResponse.FromString(await upsert(body, timeout=wire.TIMEOUT_S))
            if any(result.HasField("error") for result in reply.results):
                raise SystemExit(f"an upsert failed: {reply.results[0].error.message}")

        async with asyncio.TaskGroup() as group:
            # So many at moments drawn evenly: a Poisson process of a known count.
            for number, due in enumerate(started + random.uniform(0, seconds, int(seconds * SEARCHES_PER_S))):
                group.create_task(find(number, due))
            for body, due in zip(writes, started + random.uniform(0, seconds, len(writes)), strict=True):
                group.create_task(write(body, due))
    return latencies


if __name__ == "__main__":
    main()
