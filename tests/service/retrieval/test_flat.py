"""Exact search where float32 alone would err: ties, near ties, long vectors, dead rows, many segments."""

import threading
from collections.abc import Sequence

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval import flat
from service.retrieval.checks import Batch
from service.retrieval.columns import Mask
from service.retrieval.index import Metric, Storage
from service.retrieval.rows import Rows
from service.retrieval.segments import Segments


def filled(vectors: NDArray[np.float32], max_rows: int = 64, storage: Storage = Storage.FLOAT32) -> Segments:
    segments = Segments(vectors.shape[1], max_rows, storage=storage)
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
    segments: Segments,
    metric: Metric,
    queries: NDArray[np.float32],
    top_k: int,
    kept: Sequence[Mask] | None = None,
) -> list[list[tuple[str, float]]]:
    found = flat.search(Rows(segments.view(), kept), metric, queries, top_k)
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


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
@pytest.mark.parametrize("storage", list(Storage))
@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.9])
@pytest.mark.parametrize("max_rows", [100, 5000])
def test_rows_kept_by_a_filter(
    metric: Metric, storage: Storage, count: int, share: float, max_rows: int
) -> None:
    """Few or many of them, compared where they are or copied together, beside dead rows."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((4000, 24)).astype(np.float16).astype(np.float32)
    queries = rng.standard_normal((count, 24)).astype(np.float32)
    segments = filled(vectors, max_rows, storage)
    dead = rng.choice(4000, 150, replace=False)
    segments.publish(segments.prepare(removed=[str(n) for n in dead]))
    chosen = {str(n) for n in np.flatnonzero(rng.random(4000) < share)} - {str(n) for n in dead}
    kept = [
        np.array([name in chosen for name in segment.ids[: segment.used]]) & ~segment.dead[: segment.used]
        for segment in segments.view()
    ]
    assert sum(map(np.count_nonzero, kept)) == len(chosen)
    ranked = brute(vectors, metric, queries, 4000)
    for top_k in (1, 10, 50):
        expected = [[pair for pair in row if pair[0] in chosen][:top_k] for row in ranked]
        same(answers(segments, metric, queries, top_k, kept), expected)


@pytest.mark.parametrize("count", [1, 16])
def test_equal_items_that_a_filter_keeps_keep_the_order_of_writing(count: int) -> None:
    vectors = np.ones((3000, 33), np.float32)
    segments = filled(vectors, 700)
    for step in (2, 100):
        kept = [np.arange(segment.used) % step == 0 for segment in segments.view()]
        numbers = [n for start in range(0, 3000, 700) for n in range(start, min(3000, start + 700), step)]
        for hits in answers(segments, Metric.INNER_PRODUCT, np.ones((count, 33), np.float32), 20, kept):
            assert [name for name, _ in hits] == [str(n) for n in numbers[:20]]


@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
@pytest.mark.parametrize("near", [12, 18, 40])
def test_near_ties_about_the_last_place_are_told_apart(metric: Metric, near: int) -> None:
    """So near that float32 sums take them for another order, though few enough to be candidates."""
    rng = np.random.default_rng(near)
    queries = rng.standard_normal((16, 512)).astype(np.float32)
    vectors = rng.standard_normal((900, 512)).astype(np.float32)
    for rows, query in zip(rng.permutation(900)[: 16 * near].reshape(16, near), queries, strict=True):
        vectors[rows] = query * (1 + rng.standard_normal((near, 512)).astype(np.float32) * 1e-7)
    segments = filled(vectors, 256)
    everything = [np.ones(segment.used, np.bool_) for segment in segments.view()]
    expected = brute(vectors, metric, queries, 10)
    for kept in (None, everything):
        same(answers(segments, metric, queries, 10, kept), expected)
        for line in range(16):  # alone, where no other query's candidates help
            same(answers(segments, metric, queries[line : line + 1], 10, kept), expected[line : line + 1])


def test_a_filter_that_keeps_nothing_finds_nothing() -> None:
    segments = filled(np.eye(100, dtype=np.float32))
    kept = [np.zeros(segment.used, np.bool_) for segment in segments.view()]
    assert answers(segments, Metric.L2, np.eye(100, dtype=np.float32)[:3], 5, kept) == [[], [], []]


def test_float16_is_compared_as_it_is_stored() -> None:
    """Every float16 there is, but for the infinite: as its own nearest."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    first = halves[np.isfinite(halves)].astype(np.float32)
    vectors = np.stack([first, np.ones(len(first), np.float32)], axis=1)
    segments = filled(vectors, 16_384, Storage.FLOAT16)
    chosen = np.random.default_rng(7).choice(len(vectors), 300)
    for row, [(name, score)] in zip(
        chosen, answers(segments, Metric.L2, np.ascontiguousarray(vectors[chosen]), 1), strict=True
    ):
        assert (vectors[int(name)] == vectors[row]).all()  # 0 and -0 are equal
        assert score == 0


def test_searches_start_no_threads_of_their_own() -> None:
    """OpenMP's setting is per thread: one that never searched has as many as there are cores."""
    segments = filled(np.eye(200, dtype=np.float32))
    threads: list[int] = []

    def work() -> None:
        faiss.omp_set_num_threads(2)
        flat.search(Rows(segments.view()), Metric.INNER_PRODUCT, np.eye(200, dtype=np.float32)[:16], 3)
        threads.append(faiss.omp_get_max_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert threads == [1]
