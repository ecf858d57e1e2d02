"""What the retrieval benchmarks search, and the truth about it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.clustered import Clusters, nearest

BATCH, TOP_K = 16, 10
BUCKETS = 100
"""A filter keeps one of them: 1%."""


@dataclass(frozen=True)
class Data:
    """What is searched, and the truth.

    Attributes:
        vectors: float32 [rows, 512].
        buckets: int64 [rows], 0 to 99.
        batches: queries, float32 [16, 512] each.
        truth: int64 [queries, 10].
        truth_in_bucket: the same in the bucket 0.
    """

    vectors: NDArray[np.float32]
    buckets: NDArray[np.int64]
    batches: list[NDArray[np.float32]]
    truth: NDArray[np.int64]
    truth_in_bucket: NDArray[np.int64]


def make_data(rows: int, queries: int) -> Data:
    """By a fixed seed."""
    clusters = Clusters()
    vectors, asked = clusters.drawn(rows, 1), clusters.drawn(queries, 2)
    buckets = np.random.default_rng(3).integers(0, BUCKETS, rows)
    batches = [asked[start : start + BATCH] for start in range(0, queries, BATCH)]
    truth, truth_in_bucket = (
        np.concatenate([nearest(vectors, batch, TOP_K, kept) for batch in batches])
        for kept in (None, buckets == 0)
    )
    return Data(vectors, buckets, batches, truth, truth_in_bucket)


def recall(found: Sequence[Sequence[int]], truth: NDArray[np.int64]) -> float:
    """The share of the truth that was found."""
    pairs = zip(found, truth.tolist(), strict=True)
    return statistics.fmean(len(set(ids) & set(true)) / len(true) for ids, true in pairs)


Ways = Mapping[str, tuple[Callable[[], object], int]]
"""What to run, and how many queries it answers, by name."""


def in_turns(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Queries per second of each way and round."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, (run, queries) in ways.items():
            started = time.perf_counter()
            run()
            rates[way].append(queries / (time.perf_counter() - started))
        line = ", ".join(f"{way} {of_way[-1]:,.0f}/s" for way, of_way in rates.items())
        print(f"round {number + 1}: {line}", flush=True)
    return rates


def ratio(rates: Mapping[str, Sequence[float]], way: str, floor: str) -> float:
    """One way's rates ÷ another's; the median of the rounds."""
    return statistics.median(ours / bare for ours, bare in zip(rates[way], rates[floor], strict=True))
