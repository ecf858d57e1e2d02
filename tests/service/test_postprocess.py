"""Logits → the best classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.postprocess import top_k

MANY = 1000  # classes: so many that the best few are looked for without sorting all


def rows(*logits: list[float]) -> NDArray[np.float32]:
    return np.array(logits, np.float32)


def sorted_classes(logits: NDArray[np.float32], k: int) -> list[list[int]]:
    """Best first, of equal ones the lower index: by sorting everything."""
    return [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in logits.tolist()]


def test_softmax_best_first_each_row_its_own() -> None:
    ranking = top_k(rows([1, 3, 2], [5, 0, 0]), "single_label", 1.0, 2)
    assert ranking.indices == [[1, 2], [0, 1]]
    total, other = np.exp([1.0, 3.0, 2.0]).sum(), np.exp([5.0, 0.0, 0.0]).sum()
    assert ranking.probabilities[0] == pytest.approx([np.exp(3) / total, np.exp(2) / total])
    assert ranking.probabilities[1] == pytest.approx([np.exp(5) / other, 1 / other])


def test_temperature_divides_the_logits_first() -> None:
    hot = top_k(rows([1, 3, 2]), "single_label", 4.0, 3)
    expected = np.exp(np.array([3.0, 2.0, 1.0]) / 4)
    assert hot.indices == [[1, 2, 0]]
    assert hot.probabilities[0] == pytest.approx(expected / expected.sum())


def test_multi_label_is_a_sigmoid_each() -> None:
    ranking = top_k(rows([1, 3, 2]), "multi_label", 2.0, 3)
    assert ranking.indices == [[1, 2, 0]]
    assert ranking.probabilities[0] == pytest.approx(1 / (1 + np.exp([-1.5, -1.0, -0.5])))


def test_more_than_there_are_gives_all_and_equal_ones_come_in_order() -> None:
    ranking = top_k(rows([0, 0, 0]), "single_label", 1.0, 10**9)
    assert ranking.indices == [[0, 1, 2]]
    assert ranking.probabilities[0] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("classes", [128, 129, MANY])
@pytest.mark.parametrize("k", [1, 5, 10, 11, 127, MANY])
def test_many_classes_give_what_sorting_all_gives(classes: int, k: int) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(7, classes)).astype(np.float32)
    logits[1] = 0  # all equal
    logits[2] = random.integers(0, 3, classes)  # many equal
    logits[3, ::7] = logits[3].max() + 1  # more equal ones than are asked for
    ranking = top_k(logits, "single_label", 1.0, k)
    assert ranking.indices == sorted_classes(logits, k)
    for row, indices, probabilities in zip(logits, *ranking, strict=True):
        softmax = np.exp(row.astype(np.float64) - row.max())
        assert probabilities == pytest.approx((softmax / softmax.sum())[indices])


def test_the_whole_of_many_classes_sums_to_one() -> None:
    logits = np.random.default_rng(2).normal(size=(3, MANY)).astype(np.float32)
    for probabilities in top_k(logits, "single_label", 1.0, MANY).probabilities:
        assert sum(probabilities) == pytest.approx(1.0)
        assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("k", [1, 5, 10, 11])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 1e-308])
@pytest.mark.parametrize("classes", [3, MANY])
def test_an_image_alone_is_ranked_as_in_a_batch(classes: int, temperature: float, k: int) -> None:
    random = np.random.default_rng(4)
    logits = (10 * random.normal(size=(20, classes))).astype(np.float32)
    logits[1] = 7  # all equal
    logits[2] = random.integers(0, 3, classes)
    together = top_k(logits, "single_label", temperature, k)
    alone = [top_k(row[None], "single_label", temperature, k) for row in logits]
    assert [ranking.indices[0] for ranking in alone] == together.indices
    assert [ranking.probabilities[0] for ranking in alone] == together.probabilities


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [slice(None), slice(1, 2), slice(-1, None)])
def test_an_image_alone_that_is_not_finite_gets_some_ranking(value: float, where: slice) -> None:
    logits = np.random.default_rng(5).normal(size=(1, MANY)).astype(np.float32)
    logits[0, where] = value
    ranking = top_k(logits, "single_label", 1.0, 3)  # a warning would be an error here
    assert [len(of_all) for of_all in (ranking.indices[0], ranking.probabilities[0])] == [3, 3]


@given(
    st.lists(st.sampled_from([-2.0, 0.0, 0.5, 0.5000001, 3.0]), min_size=1, max_size=300),
    st.integers(1, 300),
)
def test_any_row_is_ranked_as_by_sorting(row: list[float], k: int) -> None:
    assert top_k(rows(row), "multi_label", 1.0, k).indices == sorted_classes(rows(row), k)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("classes", [0, 3, MANY])
def test_none_are_asked_for_or_there(task: str, classes: int) -> None:
    assert top_k(np.zeros((2, classes), np.float32), task, 1.0, 5 if classes == 0 else 0) == ([[], []],) * 2


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_huge_logits_do_not_overflow(task: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        ranking = top_k(rows([1e30, -1e30, 0.0]), task, 1.0, 3)
    assert ranking.indices == [[0, 2, 1]]
    assert ranking.probabilities[0][0] == pytest.approx(1.0)
    assert ranking.probabilities[0][2] == pytest.approx(0.0)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("classes", [3, MANY])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [slice(None), slice(0, 2)])
def test_a_row_that_is_not_finite_harms_no_other(task: str, classes: int, value: float, where: slice) -> None:
    good = np.random.default_rng(3).normal(size=classes).astype(np.float32)
    bad = good.copy()
    bad[where] = value
    together, alone = top_k(np.stack([good, bad, good]), task, 1.0, 3), top_k(good[None], task, 1.0, 3)
    assert together.indices[0] == together.indices[2] == alone.indices[0]
    assert together.probabilities[0] == together.probabilities[2] == alone.probabilities[0]
    assert len(together.indices[1]) == 3
    assert all(0 <= index < classes for index in together.indices[1])


def test_the_logits_are_left_as_they_are() -> None:
    logits = rows([1, 3, 2])
    logits.flags.writeable = False
    top_k(logits, "single_label", 2.0, 1)
    assert logits.tolist() == [[1, 3, 2]]
