"""Search by the 1-bit tier against brute force: recall, and never what was deleted or filtered out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval import flat, one_bit, raw
from service.retrieval import tier as tier_module
from service.retrieval.columns import Mask
from service.retrieval.index import Metric, Storage
from service.retrieval.rows import Hit, Rows
from service.retrieval.segments import Segments
from service.retrieval.tier import Tier, renewed
from tests.service.retrieval.clusters import DIMENSION, drawn, filled, nearest, recall, removed, stretched

ROWS = 12_000
QUERIES = drawn(48, 2)


def found(hits: Sequence[Sequence[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in line] for line in hits]


def search(
    tier: Tier,
    segments: Segments,
    metric: Metric = Metric.COSINE,
    queries: NDArray[np.float32] = QUERIES,
    top_k: int = 10,
    *,
    kept: Sequence[Mask] | None = None,
    wanted: float = 0.98,
) -> list[list[str]]:
    hits = one_bit.search(tier, segments.view(), metric, queries, top_k, kept, wanted)
    for line in hits:
        assert len({hit.id for hit in line}) == len(line)
        scores = [hit.score for hit in line]
        assert scores == sorted(scores, reverse=True)
    return found(hits)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return drawn(ROWS, 1)


@pytest.fixture
def segments(vectors: NDArray[np.float32]) -> Segments:
    return filled(vectors)


@pytest.fixture(scope="module")
def tier(vectors: NDArray[np.float32]) -> Tier:
    return renewed(None, filled(vectors).view(), Metric.COSINE)


@pytest.fixture
def own_tier(segments: Segments, tier: Tier) -> Tier:
    """The module's tier over the test's own segments: nothing is encoded twice."""
    return renewed(tier, segments.view(), Metric.COSINE)


@pytest.fixture
def few_compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries were answered by comparing everything."""
    counts: list[int] = []
    real = flat.search

    def counted(*arguments: Any) -> list[list[Hit]]:
        counts.append(len(arguments[2]))  # the queries
        return real(*arguments)

    monkeypatch.setattr(flat, "search", counted)
    return counts


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_recall_is_as_wanted(metric: Metric, spread: float, vectors: NDArray[np.float32]) -> None:
    if spread and metric is Metric.COSINE:
        pytest.skip("cosine collections hold vectors of length 1")
    rows = stretched(vectors, spread)
    segments = filled(rows)
    tier = renewed(None, segments.view(), metric)
    for top_k, wanted in ((1, 0.98), (10, 0.9), (10, 0.98), (100, 0.98)):
        queries = drawn(300, 3) if top_k == 1 else QUERIES
        given = search(tier, segments, metric, queries, top_k, wanted=wanted)
        assert [len(ids) for ids in given] == [top_k] * len(queries)
        assert recall(given, nearest(rows, metric, queries, top_k)) >= wanted


@pytest.mark.parametrize("spread", [0.3, 0.6])
@pytest.mark.parametrize("times", [0.1, 0.3, 3.0])
def test_recall_is_as_wanted_for_queries_of_another_length(
    spread: float, times: float, vectors: NDArray[np.float32]
) -> None:
    """By distance the nearest are then at any angle: short ones, and long ones on the other side."""
    rows, queries = stretched(vectors, spread), np.float32(times) * QUERIES
    segments = filled(rows)
    given = search(renewed(None, segments.view(), Metric.L2), segments, Metric.L2, queries)
    assert recall(given, nearest(rows, Metric.L2, queries, 10)) >= 0.98


def test_most_is_left_out_of_the_scoring(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32], few_compared: list[int]
) -> None:
    """Else the tests of recall would show nothing."""
    scored = 0
    real = raw.raw_of

    def counted(rows: Any, metric: Any, query: Any, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal scored
        scored += int(np.count_nonzero(numbers >= 0))
        return real(rows, metric, query, numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_bit, "raw_of", counted)
        given = search(own_tier, segments)
    assert recall(given, nearest(vectors, Metric.COSINE, QUERIES, 10)) >= 0.98
    assert scored < 0.1 * ROWS * len(QUERIES)
    assert few_compared == []


@pytest.mark.parametrize("guess", [0.0, 0.05, 0.49, 1.0])
def test_a_wrong_guess_at_how_near_the_nearest_are_costs_no_recall(
    guess: float,
    segments: Segments,
    own_tier: Tier,
    vectors: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_bit._Search, "_guessed", lambda _self, queries: np.full(len(queries), guess))
    given = search(own_tier, segments)
    assert recall(given, nearest(vectors, Metric.COSINE, QUERIES, 10)) >= 0.98


def test_a_guess_from_few_rows_in_the_order_of_their_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier_module, "_SAMPLED_ROWS", 1000)
    rows = drawn(ROWS, 1)
    rows = rows[np.argsort(rows @ rows[0])]
    segments = filled(rows)
    tier = renewed(None, segments.view(), Metric.COSINE)
    assert tier.sample_step == 12
    for top_k in (1, 10, 300):
        given = search(tier, segments, top_k=top_k)
        assert recall(given, nearest(rows, Metric.COSINE, QUERIES, top_k)) >= 0.98


def test_scores_and_order_are_those_of_comparing_everything(segments: Segments, own_tier: Tier) -> None:
    exact = flat.search(Rows(segments.view()), Metric.COSINE, QUERIES, 10)
    given = one_bit.search(own_tier, segments.view(), Metric.COSINE, QUERIES, 10, None, 0.999)
    scores = {(line, hit.id): hit.score for line, hits in enumerate(exact) for hit in hits}
    same = sum(scores.get((line, hit.id)) == hit.score for line, hits in enumerate(given) for hit in hits)
    assert same >= 0.99 * len(scores)
    assert one_bit.search(own_tier, segments.view(), Metric.COSINE, QUERIES, 10, None, 1.0) == exact


def test_many_neighbours(segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]) -> None:
    truth = nearest(vectors, Metric.COSINE, QUERIES[:8], 1000)
    given = search(own_tier, segments, queries=QUERIES[:8], top_k=1000)
    assert [len(ids) for ids in given] == [1000] * 8
    assert recall(given, truth) >= 0.98
    everything = search(own_tier, segments, queries=QUERIES[:2], top_k=ROWS + 5)
    assert [len(ids) for ids in everything] == [ROWS] * 2


@pytest.mark.parametrize("top_k", [1, 10])
def test_queries_unlike_the_collection(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32], top_k: int
) -> None:
    random = np.random.default_rng(3)
    between = QUERIES[:16] + QUERIES[16:32]
    elsewhere = random.standard_normal((16, DIMENSION)).astype(np.float32)
    for queries in (between, elsewhere):
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        truth = nearest(vectors, Metric.COSINE, unit, top_k)
        assert recall(search(own_tier, segments, queries=unit, top_k=top_k), truth) >= 0.98


def test_the_nearest_are_deleted(segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]) -> None:
    """As many as the scan returns at first: others must be found in their place."""
    query = QUERIES[:1]
    gone = nearest(vectors, Metric.COSINE, query, 1500)[0]
    removed(segments, gone)
    kept = np.ones(ROWS, np.bool_)
    kept[[int(name) for name in gone]] = False
    truth = nearest(vectors, Metric.COSINE, QUERIES, 10, kept)
    for tier in (own_tier, renewed(own_tier, segments.view(), Metric.COSINE)):
        given = search(tier, segments)
        assert set(gone).isdisjoint(name for ids in given for name in ids)
        assert recall(given, truth) >= 0.98


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.1, 0.5, 0.99])
def test_filters(share: float, segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]) -> None:
    random = np.random.default_rng(4)
    kept = random.random(ROWS) < share
    removed(segments, [str(number) for number in range(0, ROWS, 7)])
    kept[::7] = False
    view = segments.view()
    rows = {segment.ids[row]: (s, row) for s, segment in enumerate(view) for row in range(segment.used)}
    masks = [np.zeros(segment.used, np.bool_) for segment in view]
    for number in np.flatnonzero(kept):
        part, row = rows[str(number)]
        masks[part][row] = True
    truth = nearest(vectors, Metric.COSINE, QUERIES, 10, kept)
    truth = [ids[: int(kept.sum())] for ids in truth]
    given = search(own_tier, segments, kept=masks)
    assert all(kept[int(name)] for ids in given for name in ids)
    assert recall(given, truth) >= 0.98


def test_a_filter_against_the_query(segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]) -> None:
    """What it keeps is all far from the query."""
    query = QUERIES[0]
    kept = vectors @ query < np.quantile(vectors @ query, 0.6)
    masks = [kept[start : start + 1000] for start in range(0, ROWS, 1000)]
    given = search(own_tier, segments, queries=query[None], kept=masks)
    assert recall(given, nearest(vectors, Metric.COSINE, query[None], 10, kept)) >= 0.9


def test_rows_that_came_after_the_tier_are_found(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]
) -> None:
    more = drawn(700, 5)
    filled(more, segments=segments)
    everything = np.concatenate([vectors, more])
    truth = nearest(everything, Metric.COSINE, QUERIES, 10)
    assert own_tier.uncovered(segments.view()) == 700
    assert any(int(name) >= ROWS for ids in truth for name in ids)
    assert recall(search(own_tier, segments), truth) >= 0.98
    [ids] = search(own_tier, segments, queries=more[-1:], top_k=1)
    assert ids == [str(ROWS + 699)]


def test_everything_is_compared_while_the_tier_lacks_many_rows(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32], few_compared: list[int]
) -> None:
    more = drawn(3000, 5)
    filled(more[:1000], segments=segments)
    search(own_tier, segments)
    assert few_compared == []
    filled(more[1000:], segments=segments)
    given = search(own_tier, segments)
    assert few_compared == [len(QUERIES)]
    assert given == nearest(np.concatenate([vectors, more]), Metric.COSINE, QUERIES, 10)
    search(renewed(own_tier, segments.view(), Metric.COSINE), segments)
    assert few_compared == [len(QUERIES)]


def test_rows_that_were_replaced_and_moved_are_found_where_they_are(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32]
) -> None:
    """Every third row goes, so all segments are rewritten, and what the tier knew is nowhere."""
    kept = np.ones(ROWS, np.bool_)
    kept[::3] = False
    before = segments.view()
    removed(segments, [str(number) for number in range(0, ROWS, 3)])
    assert not {id(s.vectors) for s in before} & {id(s.vectors) for s in segments.view()}
    truth = nearest(vectors, Metric.COSINE, QUERIES, 10, kept)
    assert recall(search(own_tier, segments), truth) >= 0.98
    again = renewed(own_tier, segments.view(), Metric.COSINE)
    assert again.uncovered(segments.view()) == 0
    assert recall(search(again, segments), truth) >= 0.98
    # A search that took its view before sees what was there then.
    stale = one_bit.search(again, before, Metric.COSINE, QUERIES, 10, None, 0.98)
    assert recall(found(stale), nearest(vectors, Metric.COSINE, QUERIES, 10)) >= 0.98


def test_float16_is_scored_as_stored(vectors: NDArray[np.float32]) -> None:
    rounded = vectors.astype(np.float16).astype(np.float32)
    segments = filled(rounded, segments=Segments(DIMENSION, 1000, storage=Storage.FLOAT16))
    tier = renewed(None, segments.view(), Metric.L2)
    given = search(tier, segments, Metric.L2)
    assert recall(given, nearest(rounded, Metric.L2, QUERIES, 10)) >= 0.98


def test_equal_vectors_come_in_the_order_of_writing() -> None:
    rows = drawn(6000, 1)
    rows[100:130] = rows[100]
    segments = filled(rows)
    tier = renewed(None, segments.view(), Metric.COSINE)
    [ids] = search(tier, segments, queries=rows[100:101], top_k=20)
    assert ids == [str(number) for number in range(100, 120)]


def test_no_queries_and_no_rows(own_tier: Tier, segments: Segments) -> None:
    assert search(own_tier, segments, queries=QUERIES[:0]) == []
    assert one_bit.search(own_tier, (), Metric.COSINE, QUERIES[:2], 10, None, 0.98) == [[], []]


def test_rows_within_a_code_that_many_share_are_all_scored() -> None:
    """More equal codes than the scan returns: which of them come first says nothing."""
    rows = drawn(8000, 1)
    rows[1000:5000] = rows[1000] * (1 + 1e-6 * np.arange(4000, dtype=np.float32)[:, None])
    segments = filled(rows)
    tier = renewed(None, segments.view(), Metric.INNER_PRODUCT)
    [ids] = search(tier, segments, Metric.INNER_PRODUCT, rows[1000:1001], 10)
    assert ids == [str(number) for number in range(4999, 4989, -1)]


def test_fewer_candidates_than_spare_ones(
    segments: Segments, own_tier: Tier, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two queries one has hardly more candidates than neighbours: there is nothing else to choose from."""
    queries = np.concatenate([vectors[:1], QUERIES[:1]])
    limits = np.array([0.0, 0.3])
    monkeypatch.setattr(one_bit._Search, "_guessed", lambda _self, queries: limits[queries])
    given = search(own_tier, segments, queries=queries, top_k=1)
    assert given[0] == ["0"]
    assert given[1] == nearest(vectors, Metric.COSINE, queries[1:], 1)[0]
