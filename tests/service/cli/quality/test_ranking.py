"""The formulas against training's, which sees every image as a query among all others, and by hand."""

import numpy as np
import pytest
import torch

from service.cli.quality.evaluation import scores, slack
from service.cli.quality.ranking import Tally, places
from training.retrieval_metrics import retrieval_scores


def test_the_same_as_training() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 5, 200)
    centres = random.normal(size=(5, 8))
    vectors = (centres[labels] + random.normal(size=(200, 8))).astype(np.float32)
    vectors[50] = vectors[51]  # equally near to everything
    tally = Tally()
    for row, near in enumerate(scores(vectors, vectors, "cosine")):
        kept = np.arange(200) != row
        right = labels[kept] == labels[row]
        tally.add(places(near[kept], right), int(right.sum()), 199)
    ours = tally.scores()
    theirs = retrieval_scores(torch.from_numpy(vectors), torch.from_numpy(labels))
    assert ours.recall_at == pytest.approx(theirs.recall_at)
    assert ours.map_at_r == pytest.approx(theirs.map_at_r, abs=1e-6)
    assert 0.1 < ours.map_at_r < 0.9


def test_by_hand() -> None:
    near = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
    found = places(near, np.array([False, True, False, True, False]))
    assert found.tolist() == [2, 4]
    tally = Tally()
    tally.add(found, 2, 5)
    result = tally.scores()
    assert result.recall_at == {1: 0, 5: 1, 10: 1}
    assert result.precision_at_10 == pytest.approx(2 / 5)
    assert result.mean_average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.map_at_r == pytest.approx(1 / 2 / 2)


def test_of_equally_near_ones_the_wrong_come_first() -> None:
    right = np.array([True, False, True, False])
    assert places(np.ones(4, np.float32), right).tolist() == [3, 4]
    last_bits = np.array([1, -1, 1, -1], np.float32) * 1e-7
    assert places(0.5 + last_bits, right).tolist() == [1, 2]
    assert places(0.5 + last_bits, right, 3e-7).tolist() == [3, 4]


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("length", [1e-3, 1, 300])
@pytest.mark.parametrize("dimension", [8, 512])
def test_vectors_that_are_equal_but_for_rounding_are_equally_near(
    metric: str, length: float, dimension: int
) -> None:
    random = np.random.default_rng(1)
    one = random.normal(size=dimension)
    one *= length / np.linalg.norm(one)
    noise = 1 + 1e-7 * random.normal(size=(200, dimension))
    vectors, labels = (one * noise).astype(np.float32), np.arange(200) % 2
    for row, near in enumerate(scores(vectors[:20], vectors, metric)):
        kept = np.arange(200) != row
        (equal,) = slack(vectors[row : row + 1], vectors, metric)
        assert places(near[kept], labels[kept] == labels[row], equal).tolist() == list(range(101, 200))
    # And nothing else is: two classes that a hundredth of their length tells apart.
    other = one + 0.01 * length * np.eye(dimension)[0]
    apart = (np.where(labels[:, None], one, other) * noise).astype(np.float32)
    near = scores(apart[:1], apart, metric)[0][1:]
    (equal,) = slack(apart[:1], apart, metric)
    if metric != "inner_product":  # which the longer one wins
        assert places(near, labels[1:] == labels[0], equal).tolist() == list(range(1, 100))


def test_scores_follow_the_metric() -> None:
    queries, gallery = np.array([[3, 4]], np.float32), np.array([[3, 0], [0, 8], [3, 4]], np.float32)
    np.testing.assert_allclose(scores(queries, gallery, "cosine"), [[0.6, 0.8, 1]], rtol=1e-6)
    np.testing.assert_allclose(scores(queries, gallery, "inner_product"), [[9, 32, 25]])
    np.testing.assert_allclose(scores(queries, gallery, "l2"), [[-16, -25, 0]], atol=1e-5)
