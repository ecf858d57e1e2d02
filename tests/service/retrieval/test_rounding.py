"""The bound on rounding holds against float32 sums in any order, and isn't so wide that it proves nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.rounding import Rounding

DIMENSION = 300


def drawn(scale: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries and rows whose products partly cancel out, so that sums are small beside what was rounded."""
    generator = np.random.default_rng(5)
    queries = generator.normal(0, scale, (8, DIMENSION)).astype(np.float32)
    rows = generator.normal(0, scale, (64, DIMENSION)).astype(np.float32)
    half = DIMENSION // 2
    rows[:, half:] = -rows[:, :half]
    queries[:, half:] = queries[:, half - 1 :: -1]
    return queries, rows


def one_by_one(terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Summed in the worst order that an engine might take."""
    total = np.zeros(terms.shape[:-1], np.float32)
    for column in np.moveaxis(terms, -1, 0):
        total += column
    return total


@pytest.mark.parametrize("scale", [1e-21, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("metric", [Metric.INNER_PRODUCT, Metric.L2])
def test_no_sum_is_farther_off(metric: Metric, scale: float) -> None:
    queries, rows = drawn(scale)
    wide_queries, wide_rows = queries.astype(np.float64)[:, None], rows.astype(np.float64)
    if metric is Metric.L2:
        differences = rows - queries[:, None]
        measured = -one_by_one(differences * differences)
        true = -np.square(wide_rows - wide_queries).sum(axis=-1)
    else:
        measured = one_by_one(rows * queries[:, None])
        true = (wide_rows * wide_queries).sum(axis=-1)
    rounding = Rounding(metric, DIMENSION)
    largest = float(np.linalg.norm(wide_rows, axis=1).max())
    bound = np.stack([rounding.error(line, queries, largest) for line in true.T], axis=1)
    assert bound.shape == true.shape
    off = np.abs(measured - true)
    assert (off <= bound).all()
    assert off.max() > 0
    if scale > 1e-20:  # of normal numbers: a bound of 1% of the lengths would prove nothing
        lengths = np.linalg.norm(wide_queries[:, 0], axis=-1).max() + largest
        assert bound.max() < 1e-4 * lengths**2


def test_a_distance_is_measured_by_its_square() -> None:
    scores = np.array([-3, -0.5], np.float32)
    assert Rounding(Metric.L2, 2).measures(scores).tolist() == [-9, -0.25]
    assert Rounding(Metric.COSINE, 2).measures(scores).tolist() == [-3, -0.5]
    assert float(Rounding(Metric.L2, 2).measures(-3.0)) == -9


def test_one_query_has_one_bound() -> None:
    query = np.array([3, 4], np.float32)
    for metric, measure, scale in ((Metric.L2, -7.0, 7.0), (Metric.INNER_PRODUCT, 7.0, 10.0)):
        rounding = Rounding(metric, 2)
        assert float(rounding.error(measure, query, 2.0)) == float(rounding.bound(scale))
