"""α query expansion against the paper's formula."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.gallery.expansion import Expansion, check_expansion, expand
from service.retrieval.index import CollectionSpec, Metric, Neighbor

RANDOM = np.random.default_rng(5)


def unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / np.linalg.norm(values)


def nearest(query: NDArray[np.float64], vectors: dict[str, NDArray[np.float32]]) -> list[Neighbor]:
    scores = {name: float(query @ vector.astype(np.float64)) for name, vector in vectors.items()}
    return [Neighbor(name, scores[name], {}) for name in sorted(scores, key=lambda name: -scores[name])]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("length", [1.0, 50.0])
def test_it_is_the_weighted_sum(alpha: float, length: float) -> None:
    query = unit(RANDOM.normal(size=8))
    vectors = {str(n): unit(query + RANDOM.normal(size=8) * 0.3).astype(np.float32) for n in range(5)}
    vectors["away"] = (-query).astype(np.float32)
    neighbors = nearest(query, vectors)
    expected = query.copy()
    for neighbor in neighbors:
        expected += max(neighbor.score, 0.0) ** alpha * vectors[neighbor.id]
    found = expand(Metric.COSINE, (query * length).astype(np.float32), neighbors, vectors, alpha)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(expected) * length, rtol=1e-5, atol=1e-6)


def test_with_the_inner_product_the_query_weighs_by_its_score_with_itself() -> None:
    query = np.array([3.0, 4.0], np.float32)
    vectors = {"near": np.array([6.0, 8.0], np.float32), "across": np.array([4.0, -3.0], np.float32)}
    neighbors = nearest(query.astype(np.float64), vectors)
    assert [neighbor.score for neighbor in neighbors] == [50.0, 0.0]
    expected = 25.0**2 * query + 50.0**2 * vectors["near"]
    found = expand(Metric.INNER_PRODUCT, query, neighbors, vectors, 2.0)
    np.testing.assert_allclose(found, 5 * unit(expected.astype(np.float64)), rtol=1e-6)


def test_long_vectors_do_not_overflow() -> None:
    query = np.array([1e17, 0.0], np.float32)
    vectors = {"a": np.array([1e17, 1e16], np.float32)}
    found = expand(Metric.INNER_PRODUCT, query, nearest(query.astype(np.float64), vectors), vectors, 30.0)
    assert np.isfinite(found).all()
    assert math.isclose(np.linalg.norm(found.astype(np.float64)), 1e17, rel_tol=1e-6)
    assert found[1] > 0


def test_what_is_not_there_any_more_is_passed_over() -> None:
    query = np.array([0.0, 1.0], np.float32)
    gone = [Neighbor("gone", 0.9, {})]
    np.testing.assert_array_equal(expand(Metric.COSINE, query, gone, {}, 3.0), query)
    zero = np.zeros(2, np.float32)
    there = {"gone": np.array([1.0, 0.0], np.float32)}
    np.testing.assert_array_equal(expand(Metric.INNER_PRODUCT, zero, gone, there, 3.0), zero)


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_an_alpha_that_is_no_power_is_refused(alpha: float) -> None:
    spec = CollectionSpec("c", 2, Metric.COSINE, "")
    with pytest.raises(InvalidRequest, match=f"alpha {alpha}; expected 0 or more"):
        check_expansion(spec, Expansion(alpha=alpha))


def test_distances_are_no_weights() -> None:
    with pytest.raises(InvalidRequest, match="collection c has metric l2"):
        check_expansion(CollectionSpec("c", 2, Metric.L2, ""), Expansion())
    for metric in (Metric.COSINE, Metric.INNER_PRODUCT):
        check_expansion(CollectionSpec("c", 2, metric, ""), Expansion())
