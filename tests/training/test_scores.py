"""Scores against numbers worked out by hand, and against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as their_matrix

from training.scores import (
    accuracy_at,
    average_precisions,
    class_scores,
    confusion_matrix,
    mean_average_precision,
    most_confused,
    ranks,
)

LABELS = ("cat", "dog", "eel")


def test_of_equal_logits_the_first_class_is_before_the_others() -> None:
    logits = np.array([[1, 1, 1], [1, 1, 1], [0, 2, 2], [5, 1, 2]], np.float32)
    assert ranks(logits, np.array([0, 2, 2, 1])).tolist() == [0, 2, 1, 2]


def test_accuracies() -> None:
    before = np.array([0, 0, 1, 4, 9])
    assert [accuracy_at(before, k) for k in (1, 2, 5, 10)] == [0.4, 0.6, 0.8, 1.0]
    assert np.isnan(accuracy_at(np.empty(0, np.int64), 1))


def test_each_class_by_hand() -> None:
    targets, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    cat, dog, eel = class_scores(predicted, targets, LABELS)
    assert (cat.label, cat.support, cat.predicted) == ("cat", 3, 3)
    assert (cat.precision, cat.recall, cat.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (dog.precision, dog.recall, dog.f1) == (1 / 2, 1 / 2, 1 / 2)
    assert (eel.precision, eel.recall, eel.f1, eel.support) == (0, 0, 0, 0)


def test_many_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(300, 8)).astype(np.float32)
    targets = draw.integers(0, 7, 300)
    predicted = logits.argmax(axis=1)
    labels = tuple("abcdefgh")
    ours = class_scores(predicted, targets, labels)
    theirs = precision_recall_fscore_support(targets, predicted, labels=range(8), zero_division=0)
    np.testing.assert_allclose(
        [[one.precision, one.recall, one.f1, one.support] for one in ours], np.transpose(theirs)
    )
    np.testing.assert_array_equal(
        confusion_matrix(predicted, targets, 8), their_matrix(targets, predicted, labels=range(8))
    )
    assert accuracy_at(ranks(logits, targets), 5) == pytest.approx(
        top_k_accuracy_score(targets, logits, k=5, labels=range(8))
    )
    several = (draw.random((300, 8)) < 0.2).astype(np.uint8)
    several[:, 3] = 0
    ours = class_scores(logits > 0.5, several, labels)
    theirs = precision_recall_fscore_support(several, logits > 0.5, zero_division=0)
    np.testing.assert_allclose(
        [[one.precision, one.recall, one.f1, one.support] for one in ours], np.transpose(theirs)
    )
    found = average_precisions(logits, several)
    assert np.isnan(found[3])
    assert found[5] == pytest.approx(average_precision_score(several[:, 5], logits[:, 5]))


def test_average_precision_by_hand() -> None:
    # In order: right, wrong, right → (1/1 + 2/3) / 2
    found = average_precisions(np.array([[3], [2], [1]], np.float32), np.array([[1], [0], [1]], np.uint8))
    assert found.tolist() == [pytest.approx((1 + 2 / 3) / 2)]


def test_a_class_that_no_image_or_every_image_has_is_not_ranked() -> None:
    logits = np.array([[3, 3, 3], [2, 2, 2], [1, 1, 1]], np.float32)
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], np.uint8)
    assert np.isnan(average_precisions(logits, targets)).tolist() == [False, True, True]
    assert mean_average_precision(logits, targets) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(mean_average_precision(logits[:, 1:], targets[:, 1:]))


def test_the_most_confused_come_first_and_need_no_matrix() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([1, 1, 0, 0, 1, 2])
    found = [(one.label, one.predicted, one.images) for one in most_confused(predicted, targets, LABELS)]
    assert found == [("cat", "dog", 2), ("dog", "cat", 1), ("eel", "dog", 1)]
    assert len(most_confused(predicted, targets, LABELS, most=1)) == 1
    many = tuple(map(str, range(50_000)))
    (far,) = most_confused(np.array([49_999]), np.array([49_998]), many)
    assert (far.label, far.predicted) == ("49998", "49999")
