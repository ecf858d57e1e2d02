"""Exact search where float32 alone would err: ties, near ties, long vectors, dead rows, many segments."""

import threading
from collections.abc import Sequence

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval import flat
from service.retrieval.checks import Batch
from service.retrieval.index import Metric
from service.retrieval.segments import Segments


def filled(vectors: NDArray[np.float32], max_rows: int = 64) -> Segments:
    segments = Segments(vectors.shape[1], max_rows)
    put(segments, [str(n) for n in range(len(vectors))], vectors)
    return segments


def put(segments: Segments, ids: list[str], vectors: NDArray[np.float32]) -> None:
    segments.publish(segments.prepare(Batch(ids, vectors, ["{}"] * len(ids))))


def brute(
    vectors: NDArray[np.float32], metric: Metric, queries: NDArray[np.float32], top_k: int
) -> list[list[tuple[str, float]]]:
    """Ids and float32 scores, ties by row."""
    wide, others = vectors.astype(np.float64), queries.astype(np.float64)
    if metric is Metric.L2:
        scores = -np.stack([np.linalg.norm(wide - query, axis=1) for query in others])
    else:
        scores = others @ wide.T
    scores = scores.astype(np.float32)
    orders = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [[(str(n), float(s[n])) for n in order] for order, s in zip(orders, scores, strict=True)]


def answers(
    segments: Segments, metric: Metric, queries: NDArray[np.float32], top_k: int
) -> list[list[tuple[str, float]]]:
    found = flat.search(segments.view(), metric, queries, top_k)
    return [[(hit.segment.ids[hit.row], hit.score) for hit in hits] for hits in found]


def same(given: Sequence[list[tuple[str, float]]], expected: Sequence[list[tuple[str, float]]]) -> None:
    assert [[name for name, _ in row] for row in given] == [[name for name, _ in row] for row in expected]
    for row, other in zip(given, expected, strict=True):
        np.testing.assert_allclose([s for _, s in row], [s for _, s in other], rtol=1e-6)


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("max_rows", [50, 64, 5000])
@pytest.mark.parametrize("top_k", [1, 10, 300])
def test_equals_brute_force(metric: Metric, count: int, max_rows: int, top_k: int) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((1000, 48)).astype(np.float32)
    queries = rng.standard_normal((count, 48)).astype(np.float32)
    same(answers(filled(vectors, max_rows), metric, queries, top_k), brute(vectors, metric, queries, top_k))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("count", [1, 16])
def test_equal_items_keep_the_order_of_writing(metric: Metric, count: int) -> None:
    """600 copies of one vector among others, at every place in a segment: one score, one order."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((1200, 67))
    vectors[::2] = vectors[0]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[::2] = vectors[0]
    queries = np.repeat(vectors[:1], count, axis=0)
    expected = [str(n) for n in range(0, 200, 2)]
    for hits in answers(filled(vectors, 250), metric, queries, 100):
        assert [name for name, _ in hits] == expected
        assert len({score for _, score in hits}) == 1


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
def test_near_ties_are_told_apart(metric: Metric) -> None:
    """Scores that differ by less than float32's error in the search, on every row."""
    rng = np.random.default_rng(7)
    vectors = np.full((2000, 256), 1.0, np.float32)
    vectors[:, 0] += rng.permutation(2000).astype(np.float32) * 2.0**-20
    queries = (1 + np.arange(16)[:, None] / 16 + np.zeros(256)).astype(np.float32)
    segments = filled(vectors, 300)
    same(answers(segments, metric, queries, 20), brute(vectors, metric, queries, 20))


@pytest.mark.parametrize("offset", [10, 100, 1000])
@pytest.mark.parametrize("spread", [0.01, 0.1])
def test_l2_keeps_small_distances_between_long_vectors(offset: float, spread: float) -> None:
    rng = np.random.default_rng(7)
    vectors = (offset + rng.standard_normal((500, 64)) * spread).astype(np.float32)
    queries = (offset + rng.standard_normal((16, 64)) * spread).astype(np.float32)
    same(answers(filled(vectors, 500), Metric.L2, queries, 10), brute(vectors, Metric.L2, queries, 10))


def test_one_long_vector_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((500, 16)).astype(np.float32)
    vectors[77] *= 1e15
    queries = np.concatenate([vectors[:5], -vectors[77:78]])
    metric = Metric.INNER_PRODUCT
    same(answers(filled(vectors), metric, queries, 7), brute(vectors, metric, queries, 7))


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
@pytest.mark.parametrize("count", [1, 5])
def test_dead_rows_hide_nothing(metric: Metric, count: int) -> None:
    """The nearest 40 rows of each query are dead, fewer than make a segment be rewritten."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((2000, 24)).astype(np.float32)
    query = rng.standard_normal(24).astype(np.float32)
    queries = np.repeat(query[None], count, axis=0)
    segments = filled(vectors, 700)
    nearest = [name for name, _ in brute(vectors, metric, queries[:1], 40)[0]]
    segments.publish(segments.prepare(removed=nearest))
    assert sum(segment.dead_count for segment in segments.view()) == 40
    expected = [row[40:] for row in brute(vectors, metric, queries, 55)]
    same(answers(segments, metric, queries, 15), expected)


def test_searches_start_no_threads_of_their_own() -> None:
    """OpenMP's setting is per thread: one that never searched has as many as there are cores."""
    segments = filled(np.eye(200, dtype=np.float32))
    threads: list[int] = []

    def work() -> None:
        faiss.omp_set_num_threads(2)
        flat.search(segments.view(), Metric.INNER_PRODUCT, np.eye(200, dtype=np.float32)[:16], 3)
        threads.append(faiss.omp_get_max_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert threads == [1]
