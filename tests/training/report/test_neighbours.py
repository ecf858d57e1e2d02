"""The nearest, against a search that looks at every pair."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.report import neighbours
from training.report.neighbours import nearest


def vectors(count: int) -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("block", [7, 1024])
def test_they_are_those_of_a_full_search(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    embeddings = vectors(40)
    found = nearest(embeddings, 5)
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_array_equal(found.rows, np.argsort(-cosines, axis=1)[:, :5])
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :5], rtol=1e-5)
    assert found.searched == 40


def test_of_equal_ones_the_first_and_never_oneself() -> None:
    found = nearest(np.repeat(np.array([[1, 0]], np.float32), 4, axis=0), 2)
    assert found.rows.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_few_pictures_have_few_neighbours() -> None:
    assert nearest(vectors(3), 5).rows.shape == (3, 2)
    assert nearest(vectors(1), 5).rows.shape == (1, 0)


def test_among_many_evenly_spread_ones_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_SEARCHED", 10)
    found = nearest(vectors(91), 3)
    assert found.searched == 10
    assert set(found.rows.ravel().tolist()) <= {0, 10, 20, 30, 40, 50, 60, 70, 80, 90}
    assert not (found.rows == np.arange(91)[:, None]).any()
