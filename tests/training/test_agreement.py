"""The numbers between two sets of outputs, and the gates."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from service import agreement as served
from training.agreement import GATES, MAX_ACCURACY_LOSS, Agreement, agreement


def outputs(logits: list[list[float]], embeddings: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(logits, np.float32), np.array(embeddings, np.float32)


def test_training_and_service_hold_the_same_gates() -> None:
    limits = {name: (gate.top1_agreement, gate.embedding_cosine) for name, gate in GATES.items()}
    assert limits == {
        name: (gate.top1_agreement, gate.embedding_cosine) for name, gate in served.GATES.items()
    }
    assert served.MAX_ACCURACY_LOSS == MAX_ACCURACY_LOSS


@pytest.mark.parametrize("precision", GATES)
def test_both_judge_alike(precision: str) -> None:
    top1s = (0.5, 0.979, 0.98, 0.9899, 0.99, 0.9989, 0.999, 1.0)
    cosines = (0.9, 0.98, 0.999, 0.99985, 0.9999, 1.0)
    judged = set()
    for top1, cosine, accuracy in product(top1s, cosines, (None, 0.9, 0.8951, 0.895, 0.8949)):
        numbers = (1000, top1, 0.01, cosine, accuracy, None if accuracy is None else 0.9)
        failures = GATES[precision].failures(Agreement(*numbers))
        shortfall = served.Agreement(*numbers).shortfall(precision)
        assert bool(failures) == bool(shortfall), (numbers, failures, shortfall)
        judged.add(bool(failures))
    assert judged == {True, False}


def test_the_numbers_between_two_sets_of_outputs() -> None:
    reference = outputs([[4, 1], [0, -8]], [[1, 0], [0, 1]])
    other = outputs([[3, 1], [-2, -1]], [[1, 0], [0.6, 0.8]])
    measured = agreement(reference, other)
    assert (measured.images, measured.top1_agreement, measured.max_relative_error) == (2, 0.5, 7 / 8)
    assert measured.embedding_cosine == pytest.approx(0.9)
    labelled = agreement(reference, other, np.array([0, 0]))
    assert (labelled.top1_accuracy, labelled.reference_top1_accuracy) == (0.5, 1.0)
    assert labelled.recorded().keys() == Agreement.__dataclass_fields__.keys() - {"decision_agreement"}
    assert "top1_accuracy" not in agreement(reference, other).recorded()


def test_of_several_labels_the_decisions_count() -> None:
    vectors: list[list[float]] = [[1, 0], [1, 0], [1, 0], [1, 0]]
    reference = outputs([[4, 3, -1], [5, -2, -3], [-1, 0, -2], [-1, -2, -3]], vectors)
    other = outputs([[3, 4, -1], [5, -2, 1], [-1, -0.1, -2], [-3, -2, -1]], vectors)
    # Given by one: 2, 1, 1 (0 is 0.5) and 0 labels; by the other 2, 2, 0 and 0; by both 2, 1, 0 and 0.
    measured = agreement(reference, other, multi_label=True)
    assert measured.decision_agreement == pytest.approx(2 * 3 / (4 + 4))
    assert measured.top1_agreement == 0.5
    assert measured.recorded()["decision_agreement"] == measured.decision_agreement
    assert str(measured).startswith("same labels 75.00%, embedding cosine")
    assert agreement(reference, other).decision_agreement is None
    assert agreement(reference, reference, multi_label=True).decision_agreement == 1
    silent = outputs([[-1, -2, -3]] * 4, vectors)
    assert agreement(silent, silent, multi_label=True).decision_agreement == 1
    # Where no label is given at all, what would be the first one must be the same.
    muddled = outputs([[-1, -2, -3], [-2, -1, -3], [-3, -2, -1], [-3, -2, -1]], vectors)
    assert agreement(silent, muddled, multi_label=True).decision_agreement == 0.25
    assert agreement(reference, silent, multi_label=True).decision_agreement == 0
    assert measured.worse(agreement(reference, silent, multi_label=True)).decision_agreement == 0


def test_of_one_label_an_image_both_shares_are_the_same() -> None:
    draw = np.random.default_rng(0)
    right, said = draw.integers(0, 40, 500), draw.integers(0, 40, 500)
    said[:450] = right[:450]
    vectors = np.ones((500, 1), np.float32)
    one, other = (
        np.where(np.arange(40) == labels[:, None], 3, -3).astype(np.float32) for labels in (right, said)
    )
    measured = agreement((one, vectors), (other, vectors), multi_label=True)
    assert measured.decision_agreement == pytest.approx(measured.top1_agreement)


def test_the_gate_of_several_labels_is_about_decisions_alone() -> None:
    gate = GATES["int8"]
    # Which of two certain labels is surer may change; what is given may not.
    assert not gate.failures(Agreement(1000, 0.5, 0.1, 1, decision_agreement=0.98))
    assert gate.failures(Agreement(1000, 1.0, 0.1, 1, decision_agreement=0.9799)) == [
        "same labels 97.99%, expected 98.0%"
    ]
    assert gate.failures(Agreement(1000, 1.0, 0.1, 1, decision_agreement=math.nan))


@pytest.mark.parametrize("precision", GATES)
def test_both_judge_decisions_alike(precision: str) -> None:
    judged = set()
    for top1, decisions in product((0.5, 1.0), (0.5, 0.979, 0.98, 0.9899, 0.99, 0.9989, 0.999, 1.0)):
        failures = GATES[precision].failures(Agreement(1000, top1, 0.01, 1.0, decision_agreement=decisions))
        shortfall = served.Agreement(1000, top1, 0.01, 1.0, decision_agreement=decisions).shortfall(precision)
        assert bool(failures) == bool(shortfall) == (decisions < GATES[precision].top1_agreement)
        judged.add(bool(failures))
    assert judged == {True, False}


def test_of_two_measurements_the_worse_of_each_number_counts() -> None:
    left, right = Agreement(9, 0.9, 0.2, 0.99, 0.7, 0.8), Agreement(9, 0.95, 0.3, 0.98, 0.6, 0.8)
    assert left.worse(right) == right.worse(left) == Agreement(9, 0.9, 0.3, 0.98, 0.6, 0.8)
    assert Agreement(9, 0.9, 0.2, 0.99).worse(Agreement(9, 0.9, 0.2, 0.99)).top1_accuracy is None
    good = Agreement(9, 1, 0, 1)
    assert not GATES["int8"].failures(good.worse(good))
    for broken in (
        replace(good, top1_agreement=math.nan),
        replace(good, max_relative_error=math.nan),
        replace(good, embedding_cosine=math.nan),
    ):
        assert GATES["int8"].failures(good.worse(broken))
        assert GATES["int8"].failures(broken.worse(good))


def test_zero_embeddings_agree_with_each_other_only() -> None:
    zero = outputs([[1, 0]], [[0, 0]])
    assert agreement(zero, zero).embedding_cosine == 1
    assert agreement(zero, outputs([[1, 0]], [[1, 0]])).embedding_cosine == 0


@pytest.mark.parametrize("precision", GATES)
def test_what_is_not_a_number_fails_every_gate(precision: str) -> None:
    nan = float("nan")
    for measured in (Agreement(9, nan, 0, 1), Agreement(9, 1, nan, 1), Agreement(9, 1, 0, nan)):
        assert GATES[precision].failures(measured)
    assert not GATES[precision].failures(Agreement(9, 1, 0.5, 1))


def test_a_failure_says_what_was_measured_and_expected() -> None:
    failures = GATES["int8"].failures(Agreement(1000, 0.9712, 0.1, 0.5, 0.7, 0.71))
    assert failures == [
        "same top-1 97.12%, expected 98.0%",
        "embedding cosine 0.500000, expected 0.98",
        "1.00% of top-1 accuracy lost, expected at most 0.5%",
    ]


def test_without_classes_embeddings_alone_count() -> None:
    none: list[list[float]] = [[], []]
    reference, other = outputs(none, [[1, 0], [0, 1]]), outputs(none, [[1, 0], [0.6, 0.8]])
    assert agreement(reference, reference) == Agreement(2, None, 0, 1)
    measured = agreement(reference, other)
    assert measured.top1_agreement is None
    assert measured.max_relative_error == pytest.approx(0.6)
    assert measured.embedding_cosine == pytest.approx(0.9)
    assert GATES["int8"].failures(measured) == ["embedding cosine 0.900000, expected 0.98"]
    assert "top1_agreement" not in measured.recorded()
    assert str(measured).startswith("embedding cosine 0.9")
    assert measured.worse(agreement(reference, reference)) == measured
    nan = outputs(none, [[1, 0], [math.nan, 0]])
    assert len(GATES["int8"].failures(agreement(reference, nan))) == 2
