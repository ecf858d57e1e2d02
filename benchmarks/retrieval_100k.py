"""100,000 vectors of 512 numbers: searched by the embedded index, in process and over gRPC.

    python -m benchmarks.retrieval_100k

Vectors and queries are 100 unit centres plus noise of norm about 0.5 in a random 64-d subspace of each,
normalised. Recall counts the true 10 nearest among the 10 found, by brute force in float32. The index works
on one core, in turns with FAISS's own calls on the same core and data (benchmarks/faiss_floor.py); over gRPC
the client has another core. Memory is the server's, less that of the same server before the first item, when
it has answered some calls; the peak counts, of loading and searching, and of a second start.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from fovea.v1 import retrieval_pb2 as pb
from numpy.typing import NDArray

from benchmarks import retrieval_wire as wire
from benchmarks.clustered import DIMENSION
from benchmarks.faiss_floor import BinaryFloor, SelectedFloor
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.pinned import PinnedProcess, pinned_server
from benchmarks.retrieval_data import BATCH, TOP_K, Data, in_turns, make_data, ratio, recall
from benchmarks.tiny_model import write_tiny
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.filters import Equals
from service.retrieval.index import CollectionSpec, Index, Item, Metric, SearchOptions
from service.retrieval.schema import AttributeType

ROWS, QUERIES = 100_000, 1024
CALLERS = 3
UPSERT_ITEMS = 200
# Written and dropped before the server counts as empty.
WARM_ROWS = 2000
RATIO_BAR = 0.85
# Scored by FAISS's way; the fewest of these that reach the index's recall.
CANDIDATES = (100, 200, 300, 350, 400, 450, 500, 600, 800, 1200, 2000)
RECALL_BAR = 0.98
SPEC = CollectionSpec(wire.COLLECTION, DIMENSION, Metric.COSINE, "", {"bucket": AttributeType.INT})


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of few rows, which prints no figure"
    )
    options = parser.parse_args()
    core, client_core = cores()
    os.sched_setaffinity(0, {core})
    data = make_data(*((6_000, 64) if options.quick else (ROWS, QUERIES)))
    rounds = 1 if options.quick else options.rounds
    bare = Bare(data)
    figures = [*in_process(data, bare, rounds), *over_grpc(data, bare, rounds, core, client_core)]
    print(
        f"{len(data.vectors):,} × {DIMENSION}, batches of {BATCH}, top {TOP_K}; FAISS scores "
        f"{bare.candidates} candidates; one core, the client on another; {describe()}"
    )
    conclude(*figures, quick=options.quick)


class Bare:
    """FAISS's own calls, which score as many candidates as the index's recall takes."""

    def __init__(self, data: Data) -> None:
        self._data, self._floor = data, BinaryFloor(data.vectors)
        self.candidates = CANDIDATES[-1]

    def match(self, wanted: float) -> None:
        """Find out how many."""
        for candidates in CANDIDATES:
            self.candidates = candidates
            if recall(self(self._data.batches), self._data.truth) >= wanted:
                return

    def __call__(self, batches: Sequence[NDArray[np.float32]]) -> list[list[int]]:
        """Row numbers, query by query."""
        found = (self._floor.search(batch, TOP_K, self.candidates) for batch in batches)
        return [ids for part in found for ids in part.tolist()]


def in_process(data: Data, bare: Bare, rounds: int) -> Iterator[Figure]:
    """Through the index object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        started = time.monotonic()
        index = EmbeddedIndex(path)
        index.create(SPEC)
        for start in range(0, len(data.vectors), UPSERT_ITEMS):
            stop = min(start + UPSERT_ITEMS, len(data.vectors))
            items = [
                Item(str(n), data.vectors[n], {"bucket": int(data.buckets[n])}) for n in range(start, stop)
            ]
            index.upsert(wire.COLLECTION, items)
        index.flush(wire.COLLECTION)
        kind = index.describe(wire.COLLECTION).index_type
        print(f"built in {time.monotonic() - started:.1f} s: {kind}", flush=True)
        yield from searched(index, data, bare, rounds)
        index.close()
        started = time.monotonic()
        index = EmbeddedIndex(path)
        reopened_s = time.monotonic() - started
        again = recall(ask(index, data.batches), data.truth)
        index.close()
    print(f"reopened in {reopened_s:.2f} s; recall after that {again:.4f}", flush=True)
    yield Figure("retrieval_100k_reopen_s", reopened_s, 1.0, at_most=True)


def ask(
    index: Index, batches: Sequence[NDArray[np.float32]], options: SearchOptions | None = None
) -> list[list[int]]:
    """Ids found, query by query."""
    options = options or SearchOptions()
    found = (index.search(wire.COLLECTION, batch, TOP_K, options=options) for batch in batches)
    return [[int(neighbor.id) for neighbor in neighbors] for results in found for neighbors in results]


def searched(index: Index, data: Data, bare: Bare, rounds: int) -> Iterator[Figure]:
    """With and without a filter, in turns with FAISS."""
    bucket = SearchOptions(filter=Equals("bucket", 0))
    found = recall(ask(index, data.batches), data.truth)
    in_bucket = recall(ask(index, data.batches, bucket), data.truth_in_bucket)
    bare.match(found)
    singles = [query[None] for batch in data.batches[: len(data.batches) // 4] for query in batch]
    selected, rows = SelectedFloor(data.vectors), np.flatnonzero(data.buckets == 0)

    def bare_selected() -> None:
        for batch in data.batches:
            selected.search(batch, TOP_K, rows)

    count = len(data.truth)
    rates = in_turns(
        {
            "index": (lambda: ask(index, data.batches), count),
            "FAISS": (lambda: bare(data.batches), count),
            "index, one query a call": (lambda: ask(index, singles), len(singles)),
            "FAISS, one query a call": (lambda: bare(singles), len(singles)),
            "index, 1% filter": (lambda: ask(index, data.batches, bucket), count),
            "FAISS, 1% selector": (bare_selected, count),
        },
        rounds,
    )
    medians = {way: statistics.median(of_way) for way, of_way in rates.items()}
    single = ratio(rates, "index, one query a call", "FAISS, one query a call")
    print(f"one query a call: {medians['index, one query a call']:,.0f}/s, {single:.3f} of FAISS's")
    filtered = ratio(rates, "index, 1% filter", "FAISS, 1% selector")
    yield Figure("retrieval_100k_recall", found, RECALL_BAR)
    yield Figure("retrieval_100k_queries_per_s", medians["index"], 1300)
    yield Figure("retrieval_100k_ratio", ratio(rates, "index", "FAISS"), RATIO_BAR)
    yield Figure("retrieval_100k_filtered_recall", in_bucket, 0.99)
    yield Figure("retrieval_100k_filtered_queries_per_s", medians["index, 1% filter"], 1000)
    yield Figure("retrieval_100k_filtered_ratio", filtered, RATIO_BAR)


def over_grpc(data: Data, bare: Bare, rounds: int, core: int, client_core: int) -> Iterator[Figure]:
    """Against a server on its own core, in turns with FAISS on that core; the server's memory."""
    bodies = [wire.search_message(batch, TOP_K) for batch in data.batches]
    filtered = [wire.search_message(batch, TOP_K, bucket=0) for batch in data.batches]
    seconds = 1.0 if rounds == 1 else 4.0
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        write_tiny(repository)
        index_path = ("--index-path", str(Path(folder) / "index"))
        with pinned_server(repository, *index_path, core=core) as server:
            os.sched_setaffinity(0, {client_core})
            load(server, Data(data.vectors[:WARM_ROWS], data.buckets, [], data.truth, data.truth))
            wire.closed_loop(server.address, bodies[:8], CALLERS, 0.5)
            drop = pb.DropCollectionRequest(collection=wire.COLLECTION)
            wire.call(server.address, "DropCollection", drop, pb.DropCollectionResponse)
            empty = server.resident_bytes()
            load(server, data)
            rates: dict[str, list[float]] = {"gRPC": [], "gRPC, 1% filter": [], "FAISS": []}
            for number in range(rounds):
                answers = wire.closed_loop(server.address, bodies, CALLERS, seconds)
                rates["gRPC"].append(BATCH * answers.per_s)
                with_filter = wire.closed_loop(server.address, filtered, CALLERS, seconds / 2)
                rates["gRPC, 1% filter"].append(BATCH * with_filter.per_s)
                os.sched_setaffinity(0, {core})
                started = time.perf_counter()
                bare(data.batches)
                rates["FAISS"].append(len(data.truth) / (time.perf_counter() - started))
                os.sched_setaffinity(0, {client_core})
                line = ", ".join(f"{way} {of_way[-1]:,.0f}/s" for way, of_way in rates.items())
                print(f"round {number + 1}: {line}", flush=True)
            numbers = sorted(answers.replies)
            found = [ids for number in numbers for ids in wire.ids_in(answers.replies[number])]
            truth = np.concatenate([data.truth[BATCH * n : BATCH * (n + 1)] for n in numbers])
            print(f"recall over gRPC {recall(found, truth):.4f}")
            peak = server.peak_resident_bytes() - empty
        with pinned_server(repository, *index_path, core=core) as server:
            wire.closed_loop(server.address, bodies, CALLERS, seconds)
            again = server.peak_resident_bytes() - empty
    mib = 2**20
    print(
        f"memory beyond an empty server's {empty / mib:.0f} MiB: {peak / mib:.0f} MiB at the peak, "
        f"{again / mib:.0f} MiB after a second start; the vectors have {data.vectors.nbytes / mib:.0f} MiB"
    )
    yield Figure("retrieval_100k_grpc_queries_per_s", statistics.median(rates["gRPC"]), 1000)
    yield Figure("retrieval_100k_grpc_ratio", ratio(rates, "gRPC", "FAISS"), RATIO_BAR)
    yield Figure("retrieval_100k_memory", max(peak, again) / data.vectors.nbytes, 1.3, at_most=True)


def load(server: PinnedProcess, data: Data) -> None:
    """Put all items into a new collection."""
    started = time.monotonic()
    request = pb.CreateCollectionRequest(collection=wire.COLLECTION)
    request.external.dimension = DIMENSION
    request.attributes["bucket"] = pb.ATTRIBUTE_TYPE_INT
    wire.call(server.address, "CreateCollection", request, pb.CreateCollectionResponse)
    parts = (slice(start, start + UPSERT_ITEMS) for start in range(0, len(data.vectors), UPSERT_ITEMS))
    wire.upsert_all(
        server.address,
        (wire.upsert_message(part.start, data.vectors[part], data.buckets[part].tolist()) for part in parts),
    )
    flush = pb.FlushRequest(collection=wire.COLLECTION)
    wire.call(server.address, "Flush", flush, pb.FlushResponse)
    print(f"loaded {len(data.vectors):,} over gRPC in {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
