"""1,000,000 vectors of 512 numbers, stored as float16: built and searched by the embedded index within 4 GiB.

    python -m benchmarks.retrieval_1m

Vectors and queries as in retrieval_100k. The index has a process of its own, which makes the vectors some
thousands at a time and forgets them, so its peak of resident memory is the index's; recall counts against
brute force over the float32 vectors, in another process. One core. The rates stand beside those of FAISS's
own calls (benchmarks/faiss_floor.py) over codes of the same kind, which score vectors of float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clustered import DIMENSION, Clusters, nearest
from benchmarks.faiss_floor import BinaryFloor
from benchmarks.figures import Figure, conclude
from benchmarks.machine import cores, describe
from benchmarks.retrieval_data import BATCH, TOP_K, recall
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions, Storage

ROWS, QUERIES = 1_000_000, 256
RECALL_BAR = 0.95
WANTED = SearchOptions(recall=RECALL_BAR)
COLLECTION = "benchmark"
SPEC = CollectionSpec(COLLECTION, DIMENSION, Metric.COSINE, "", storage=Storage.FLOAT16)
UPSERT_ITEMS = 1000
_GIB = 2**30


def main() -> None:
    """Measure, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run of few rows, which prints no figure"
    )
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)  # of the process that has the index
    options = parser.parse_args()
    rows, rounds = (6_000, 1) if options.quick else (ROWS, options.rounds)
    if options.index:
        print(json.dumps(indexed(options.index, rows, rounds)))
        return
    os.sched_setaffinity(0, {cores()[0]})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.retrieval_1m", "--index", str(Path(folder) / "index")]
        command += ["--rounds", str(rounds), *(["--quick"] if options.quick else [])]
        # Its log goes to stdout too; the last line is what it measured.
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        index = json.loads(said.splitlines()[-1])
    vectors, queries = Clusters().drawn(rows, 1), Clusters().drawn(QUERIES, 2)
    truth = brute_force(vectors, queries)
    found = recall(index["ids"], truth)
    candidates, single_floor, batched_floor = floors(vectors, queries, truth)
    print(
        f"{index['index_type']}; built in {index['build_s']:.0f} s ({rows / index['build_s']:,.0f} items/s), "
        f"reopened in {index['reopen_s']:.1f} s, {index['disk_bytes'] / _GIB:.2f} GiB on disk"
    )
    print(
        f"{index['single_per_s']:,.0f} queries/s one by one, {index['batched_per_s']:,.0f} in batches of "
        f"{BATCH}; FAISS's calls {single_floor:,.0f} and {batched_floor:,.0f}, scoring {candidates} rows"
    )
    print(f"{rows:,} × {DIMENSION}, top {TOP_K}; one core; {describe()}")
    conclude(
        Figure("retrieval_1m_recall", found, RECALL_BAR),
        Figure("retrieval_1m_queries_per_s", index["single_per_s"], 100),
        Figure("retrieval_1m_batched_queries_per_s", index["batched_per_s"], 300),
        Figure("retrieval_1m_peak_gib", index["peak_bytes"] / _GIB, 4, at_most=True),
        quick=options.quick,
    )


def indexed(path: Path, rows: int, rounds: int) -> dict[str, object]:
    """Build, search, open again and search; what that took."""
    started = time.monotonic()
    index = EmbeddedIndex(path)
    index.create(SPEC)
    first = 0
    for block in Clusters().blocks(rows, 1):
        for start in range(0, len(block), UPSERT_ITEMS):
            part = block[start : start + UPSERT_ITEMS]
            index.upsert(COLLECTION, [Item(str(first + start + n), vector) for n, vector in enumerate(part)])
        first += len(block)
        if first % 100_000 == 0:
            print(f"{first:,} items after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    index.flush(COLLECTION)
    build_s = time.monotonic() - started
    index.close()
    started = time.monotonic()
    index = EmbeddedIndex(path)
    reopen_s = time.monotonic() - started
    queries = Clusters().drawn(QUERIES, 2)
    singles = [query[None] for query in queries]
    batches = [queries[start : start + BATCH] for start in range(0, QUERIES, BATCH)]
    single_per_s = statistics.median(rate(index, singles) for _ in range(rounds))
    batched_per_s = statistics.median(rate(index, batches) for _ in range(rounds))
    found = (index.search(COLLECTION, batch, TOP_K, options=WANTED) for batch in batches)
    ids = [[int(neighbor.id) for neighbor in line] for answers in found for line in answers]
    info = index.describe(COLLECTION)
    index.close()
    return {
        "build_s": build_s,
        "reopen_s": reopen_s,
        "single_per_s": single_per_s,
        "batched_per_s": batched_per_s,
        "ids": ids,
        "index_type": info.index_type,
        "peak_bytes": peak_bytes(),
        "disk_bytes": sum(file.stat().st_size for file in path.rglob("*")),
    }


def rate(index: EmbeddedIndex, batches: Sequence[NDArray[np.float32]]) -> float:
    """Queries per second."""
    started = time.perf_counter()
    for batch in batches:
        index.search(COLLECTION, batch, TOP_K, options=WANTED)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def peak_bytes() -> int:
    """The most memory that was resident in this process so far."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


def brute_force(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """Row numbers int64 [queries, top]: in float32."""
    parts = (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    return np.concatenate([nearest(vectors, part, TOP_K) for part in parts])


def floors(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], truth: NDArray[np.int64]
) -> tuple[int, float, float]:
    """How few candidates FAISS may score for the recall, and its queries per second, singly and not."""
    floor = BinaryFloor(vectors)
    batches = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]

    def asked(parts: Sequence[NDArray[np.float32]], candidates: int) -> tuple[list[list[int]], float]:
        started = time.perf_counter()
        found = [ids for part in parts for ids in floor.search(part, TOP_K, candidates).tolist()]
        return found, len(found) / (time.perf_counter() - started)

    for candidates in (100, 200, 400, 800, 1600, 3200):
        found, batched_per_s = asked(batches, candidates)
        if recall(found, truth) >= RECALL_BAR:
            break
    return candidates, asked([query[None] for query in queries], candidates)[1], batched_per_s


if __name__ == "__main__":
    main()
