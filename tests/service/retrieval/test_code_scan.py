"""Scans of codes against counting every differing bit."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval import code_scan, tier
from service.retrieval.code_scan import CodeScan
from service.retrieval.columns import Mask
from service.retrieval.index import Metric
from service.retrieval.margins import measured
from service.retrieval.tier import Tier, renewed
from tests.service.retrieval.clusters import drawn, filled

ROWS, DIMENSION, BITS = 3000, 300, 320
QUERIES = drawn(9, 2, dimension=DIMENSION)


@pytest.fixture(scope="module", params=[128, 256, BITS])
def scanned(request: pytest.FixtureRequest) -> Tier:
    """Tiers with heads of each size, the whole code being one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tier, "measured", lambda *arguments: replace(measured(*arguments), head_bits=request.param)
        )
        return renewed(None, filled(drawn(ROWS, 1, dimension=DIMENSION)).view(), Metric.COSINE)


@pytest.fixture(params=[None, 0.3])
def findable(request: pytest.FixtureRequest) -> Mask | None:
    return None if request.param is None else np.random.default_rng(3).random(ROWS) < request.param


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_scan, "_TILE_BYTES", 16 * 1024)


def differing(codes: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(np.bitwise_count(codes ^ query).sum(axis=1), np.int64)


def scan(scanned: Tier, findable: Mask | None = None) -> CodeScan:
    return CodeScan(scanned, scanned.coder.encode(QUERIES), findable)


def test_rows_within_both_limits_are_found(scanned: Tier, findable: Mask | None) -> None:
    codes, bits = scanned.codes, scanned.coder.encode(QUERIES)
    asked = np.array([7, 0, 3, 4])
    # Far apart, so that queries are scanned for in groups; the last one's limit lets none pass.
    heads = codes.head_bits * np.array([0.5, 0.3, 0.42, 0.0])
    limits = BITS * np.array([0.45, 0.3, 0.44, 0.0])
    near = scan(scanned, findable).within(asked, heads, limits, ROWS)
    assert near.complete.all()
    everything = np.hstack([codes.heads, codes.tails])
    for line, query in enumerate(asked):
        head = differing(codes.heads, bits[query, : codes.heads.shape[1]])
        whole = differing(everything, bits[query])
        wanted = (head <= heads[line]) & (whole <= limits[line])
        if findable is not None:
            wanted &= findable
        places = near.places[line][near.places[line] >= 0]
        assert sorted(places) == np.flatnonzero(wanted).tolist()
        np.testing.assert_array_equal(near.differing[line, : len(places)], np.sort(whole[places]))
        assert (near.places[line, len(places) :] == -1).all()
    assert len(set(np.count_nonzero(near.places >= 0, axis=1))) == 4


def test_a_query_that_too_many_are_near_doesnt_touch_the_others(scanned: Tier) -> None:
    asked, tight = np.array([1, 2]), scanned.codes.head_bits * 0.35
    alone = scan(scanned).within(asked[:1], np.array([tight]), np.array([0.4 * BITS]), 2000)
    heads = np.array([tight, scanned.codes.head_bits])
    both = scan(scanned).within(asked, heads, np.array([0.4 * BITS, BITS]), 2000)
    assert alone.complete.tolist() == [True]
    assert both.complete.tolist() == [True, False]
    np.testing.assert_array_equal(both.places[0][both.places[0] >= 0], alone.places[0])
    assert alone.places.size


def test_the_sample_has_rows_from_everywhere(
    scanned: Tier, findable: Mask | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier, "_SAMPLED_ROWS", ROWS // 5)
    fresh = replace(scanned)  # nothing is kept of another step
    assert fresh.sample_step == 5
    places = scan(fresh, findable).sampled(np.arange(len(QUERIES)), 20)
    rows = np.arange(0, ROWS, 5)
    if findable is not None:
        rows = rows[findable[rows]]
    bits = scanned.coder.encode(QUERIES)[:, : scanned.codes.heads.shape[1]]
    for query, line in enumerate(places):
        counts = differing(scanned.codes.heads, bits[query])
        assert set(line) <= set(rows.tolist())
        np.testing.assert_array_equal(counts[line], np.sort(counts[rows])[:20])
    assert scan(fresh, np.zeros(ROWS, np.bool_)).sampled(np.arange(len(QUERIES)), 20).shape == (
        len(QUERIES),
        0,
    )
