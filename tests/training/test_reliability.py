"""Bins and calibration errors, against numbers worked out by hand."""

import numpy as np
import pytest

from training import probabilities
from training.reliability import BINS, reliability


def of_probability(*highest: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Two logits a row, whose first has the softmax probability given."""
    return np.array([[np.log(p / (1 - p)), 0] for p in highest], np.float32)


def test_the_error_is_the_mean_gap() -> None:
    # Two at 0.85 of which one is right, two at 0.65 that are right, in ten bins.
    found = reliability(of_probability(0.85, 0.85, 0.65, 0.65), np.array([0, 1, 0, 0]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 2, 0]
    assert found.accuracy[[6, 8]].tolist() == [1.0, 0.5]
    assert found.confidence[[6, 8]] == pytest.approx([0.65, 0.85])
    assert np.isnan(found.accuracy[0])
    assert found.expected_calibration_error == pytest.approx((2 * 0.35 + 2 * 0.35) / 4)


def test_certain_ones_are_in_the_last_bin_and_a_bins_upper_edge_in_it() -> None:
    found = reliability(np.array([[100, 0], [0, 0]], np.float32), np.array([0, 0]), bins=2)
    assert found.counts.tolist() == [1, 1]
    assert found.expected_calibration_error == pytest.approx((0 + 0.5) / 2)


def test_temperature_moves_what_is_said_not_what_is_right() -> None:
    logits, targets = of_probability(0.99, 0.99, 0.99, 0.99), np.array([0, 0, 0, 1])
    hot = reliability(logits, targets, temperature=np.log(99) / np.log(3))
    assert hot.expected_calibration_error == pytest.approx(0, abs=1e-6)  # 3 of 4 right at 0.75
    assert reliability(logits, targets).expected_calibration_error == pytest.approx(0.24, abs=1e-6)


def test_of_several_labels_every_decision_counts() -> None:
    logits = np.array([[10, -10, 0], [10, -10, 0]], np.float32)
    found = reliability(logits, np.array([[1, 0, 1], [1, 0, 0]], np.uint8))
    assert found.counts.sum() == 6
    assert found.counts[[0, 7, BINS - 1]].tolist() == [2, 2, 2]
    assert found.accuracy[[0, 7, BINS - 1]].tolist() == [0, 0.5, 1]
    assert found.expected_calibration_error < 1e-4


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(40, 5)).astype(np.float32), draw.integers(0, 5, 40)
    whole = reliability(logits, targets)
    monkeypatch.setattr(probabilities, "_BLOCK_VALUES", 12)
    parts = reliability(logits, targets)
    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.expected_calibration_error == pytest.approx(whole.expected_calibration_error, rel=1e-12)


def test_of_no_images_the_error_is_no_number() -> None:
    found = reliability(np.empty((0, 2), np.float32), np.empty(0, np.int64))
    assert np.isnan(found.expected_calibration_error)
