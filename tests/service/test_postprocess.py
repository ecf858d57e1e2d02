"""Logits → the best classes."""

import numpy as np
import pytest

from service.postprocess import top_k

LABELS = ("a", "b", "c")
LOGITS = np.array([1.0, 3.0, 2.0], np.float32)


def test_softmax_best_first() -> None:
    scores = top_k(LOGITS, LABELS, "single_label", 1.0, 2)
    total = np.exp([1.0, 3.0, 2.0]).sum()
    assert [(score.label, score.index) for score in scores] == [("b", 1), ("c", 2)]
    assert [score.probability for score in scores] == pytest.approx([np.exp(3) / total, np.exp(2) / total])


def test_temperature_divides_the_logits_first() -> None:
    hot = top_k(LOGITS, LABELS, "single_label", 4.0, 3)
    expected = np.exp(np.array([3.0, 2.0, 1.0]) / 4)
    assert [score.probability for score in hot] == pytest.approx(expected / expected.sum())


def test_multi_label_is_a_sigmoid_each() -> None:
    scores = top_k(LOGITS, LABELS, "multi_label", 1.0, 3)
    assert [score.probability for score in scores] == pytest.approx(1 / (1 + np.exp([-3.0, -2.0, -1.0])))


def test_more_than_there_are_gives_all_and_equal_ones_come_in_order() -> None:
    scores = top_k(np.zeros(3, np.float32), LABELS, "single_label", 1.0, 10**9)
    assert [score.label for score in scores] == ["a", "b", "c"]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_huge_logits_do_not_overflow(task: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        scores = top_k(np.array([1e30, -1e30, 0.0], np.float32), LABELS, task, 1.0, 3)
    assert scores[0].probability == pytest.approx(1.0)
    assert scores[2].probability == pytest.approx(0.0)
