"""The retrieval benchmarks run through, on few rows; each against real servers and processes."""

import os

import numpy as np
import pytest

from benchmarks.clustered import CENTERS, Clusters, nearest
from benchmarks.faiss_floor import BinaryFloor, SelectedFloor
from benchmarks.retrieval_data import make_data, recall
from tests.benchmarks.quick import quick_run


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and client each need a core")
@pytest.mark.parametrize(
    ("benchmark", "figures", "said"),
    [
        ("retrieval_100k", 10, "recall over gRPC"),
        ("retrieval_1m", 4, "1-bit; built in"),
        ("search_while_writing", 1, "while writing"),
    ],
)
def test_a_quick_run_goes_through(benchmark: str, figures: int, said: str) -> None:
    lines = quick_run(benchmark)
    assert sum(line.startswith("smoke run: ") for line in lines) == figures
    assert any(said in line for line in lines)


def test_vectors_lie_around_centres() -> None:
    vectors = Clusters().drawn(3000, 1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(Clusters().drawn(3000, 1), vectors)
    assert not np.array_equal(Clusters().drawn(3000, 2), vectors)
    cosines = vectors @ vectors.T
    near = cosines > 0.6  # one centre's: 1 / 1.25 on average; others' are about orthogonal
    assert near.sum() / len(vectors) == pytest.approx(len(vectors) / CENTERS, rel=0.2)
    assert cosines[near & ~np.eye(3000, dtype=bool)].mean() == pytest.approx(0.8, abs=0.02)


def test_the_floors_find_what_is_nearest() -> None:
    data = make_data(2000, 32)
    found = [ids for b in data.batches for ids in BinaryFloor(data.vectors).search(b, 10, 1000).tolist()]
    assert recall(found, data.truth) >= 0.98
    rows = np.flatnonzero(data.buckets == 0)
    selected = SelectedFloor(data.vectors)
    found = [ids for b in data.batches for ids in selected.search(b, 10, rows).tolist()]
    assert recall(found, data.truth_in_bucket) == 1
    exact = nearest(data.vectors, data.batches[0], 10)
    assert recall(exact.tolist(), data.truth[:16]) == 1
