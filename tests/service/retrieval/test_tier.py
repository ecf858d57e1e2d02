"""Tiers: what is taken over from the one before, when they are made anew, and how the work is called off."""

import numpy as np
import pytest

from service.retrieval.index import Metric
from service.retrieval.margins import RECALLS, Margins, bits_within
from service.retrieval.signs import SignCoder
from service.retrieval.stopping import Stopped
from service.retrieval.tier import Tier, renewed
from tests.service.retrieval.clusters import drawn, filled, removed, stretched


def codes_by_sequence(tier: Tier) -> dict[int, bytes]:
    bits = np.hstack([tier.codes.heads, tier.codes.tails])
    return {int(s): code.tobytes() for s, code in zip(tier.sequences, bits, strict=True)}


def test_codes_are_taken_over_wherever_rows_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = filled(drawn(2000, 1), 300)
    first = renewed(None, segments.view(), Metric.COSINE)
    removed(segments, [str(number) for number in range(0, 2000, 2)])
    filled(drawn(150, 2), 300, segments=segments)
    encoded: list[int] = []
    encode = SignCoder.encode

    def counted(self: SignCoder, vectors: np.ndarray) -> np.ndarray:
        encoded.append(len(vectors))
        return encode(self, vectors)

    monkeypatch.setattr(SignCoder, "encode", counted)
    second = renewed(first, segments.view(), Metric.COSINE)
    assert sum(encoded) == 150
    assert second.coder is first.coder
    assert second.margins is first.margins
    known, now = codes_by_sequence(first), codes_by_sequence(second)
    assert len(now) == 1150
    assert all(known[sequence] == bits for sequence, bits in now.items() if sequence in known)
    rows = [(s.sequences[row], s.vectors[row]) for s in segments.view() for row in range(s.used)]
    for sequence, vector in rows[::97]:
        assert now[int(sequence)] == encode(second.coder, vector[None]).tobytes()


def test_it_counts_the_rows_it_has_no_codes_of() -> None:
    segments = filled(drawn(1000, 1), 300)
    tier = renewed(None, segments.view(), Metric.COSINE)
    assert tier.uncovered(segments.view()) == 0
    filled(drawn(450, 2), 300, segments=segments)
    assert tier.uncovered(segments.view()) == 450
    assert renewed(tier, segments.view(), Metric.COSINE).uncovered(segments.view()) == 0


def test_a_collection_grown_manifold_is_measured_again() -> None:
    segments = filled(drawn(500, 1), 300)
    tier = renewed(None, segments.view(), Metric.COSINE)
    filled(drawn(1000, 2), 300, segments=segments)
    assert renewed(tier, segments.view(), Metric.COSINE).coder is tier.coder
    filled(drawn(500, 3), 300, segments=segments)
    again = renewed(tier, segments.view(), Metric.COSINE)
    assert again.coder is not tier.coder
    assert again.trained_count == 2000
    assert not np.array_equal(again.coder.center, tier.coder.center)


def test_margins_are_measured_again_where_many_rows_came_since() -> None:
    """The first rows have one length; what came then has many, of which angles say less."""
    segments = filled(drawn(2000, 1))
    tier = renewed(None, segments.view(), Metric.INNER_PRODUCT)
    rows = stretched(drawn(2400, 2), 0.5)
    filled(rows[:600], segments=segments)
    few = renewed(tier, segments.view(), Metric.INNER_PRODUCT)
    assert (few.margins, few.measured_until) == (tier.margins, 2000)
    filled(rows[600:], segments=segments)
    assert renewed(few, segments.view(), Metric.INNER_PRODUCT, quick=True).margins is few.margins
    many = renewed(few, segments.view(), Metric.INNER_PRODUCT)
    assert many.coder is tier.coder
    assert many.measured_until == 4400
    assert many.margins.z(0.98) > tier.margins.z(0.98) + 0.3
    assert many.codes.head_bits == many.margins.head_bits == tier.margins.head_bits


def test_rows_that_took_the_place_of_the_measured_ones_are_measured() -> None:
    """However slowly: the number of rows stays the same."""
    segments = filled(drawn(1000, 1), 300)
    tier = renewed(None, segments.view(), Metric.COSINE)
    for start in range(0, 1000, 200):
        removed(segments, [str(number) for number in range(start, start + 200)])
        filled(drawn(200, 2 + start), 300, segments=segments)
        tier = renewed(tier, segments.view(), Metric.COSINE)
    assert tier.measured_until == 1800


def test_too_few_rows_keep_the_margins_there_are() -> None:
    segments = filled(drawn(500, 1))
    tier = renewed(None, segments.view(), Metric.COSINE)
    filled(drawn(128, 2), segments=segments)
    removed(segments, [str(number) for number in range(500)])
    assert renewed(tier, segments.view(), Metric.COSINE).margins is tier.margins


def test_the_work_is_called_off_between_segments() -> None:
    segments = filled(drawn(1000, 1), 300)
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(Stopped):
        renewed(None, segments.view(), Metric.COSINE, stopped)
    assert asked == 3


def test_margins_rise_with_the_recall_and_are_never_below_theory() -> None:
    margins = Margins((0.0,) * len(RECALLS), 0.01, 128)
    assert margins.z(0.5) == pytest.approx(0)
    assert margins.z(0.98) == pytest.approx(1.751, abs=0.001)
    steep = Margins(tuple(np.linspace(1, 5, len(RECALLS))), 0.01, 128)
    zs = [steep.z(recall) for recall in (0.01, 0.5, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999)]
    assert zs == sorted(zs)
    assert steep.z(0.9999) == 5
    assert bits_within(np.array([0.25]), 2, 256) == pytest.approx(64 + 2 * 48**0.5)


def test_margins_are_measured_where_theory_falls_short() -> None:
    """Inner products of very different lengths say little about angles."""
    vectors = drawn(4000, 1)
    even = renewed(None, filled(vectors).view(), Metric.INNER_PRODUCT).margins
    uneven = renewed(None, filled(stretched(vectors, 0.5)).view(), Metric.INNER_PRODUCT).margins
    assert uneven.z(0.98) > even.z(0.98) + 0.3


def test_a_tier_that_does_not_pay_says_so() -> None:
    """A cloud, of which most rows are about as near as the nearest, and vectors of all directions alike."""
    random = np.random.default_rng(1)
    cloud = (1 + 0.001 * random.standard_normal((600, 512))).astype(np.float32)
    assert not renewed(None, filled(cloud).view(), Metric.COSINE).useful
    everywhere = random.standard_normal((8000, 128)).astype(np.float32)  # scores a sixth or more
    everywhere /= np.linalg.norm(everywhere, axis=1, keepdims=True)
    assert not renewed(None, filled(everywhere).view(), Metric.COSINE).useful
    assert renewed(None, filled(drawn(4000, 1, dimension=256, centers=40)).view(), Metric.COSINE).useful
