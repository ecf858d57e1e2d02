"""Batches for pair losses: several images of each class, all images once, the same for the same seed."""

from collections import Counter

import numpy as np
import pytest

from training.class_batches import class_batches_order
from training.errors import SettingError


def batches(labels: list[int], batch_size: int, per_class: int, epoch: int = 1) -> list[list[int]]:
    order = class_batches_order(np.array(labels), batch_size, per_class, seed=3, epoch=epoch)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def test_each_batch_has_whole_groups_of_as_many_classes_as_it_can() -> None:
    labels = [index % 12 for index in range(240)]
    for batch in batches(labels, 32, 4)[:-2]:
        counts = Counter(labels[index] for index in batch)
        assert counts == dict.fromkeys(counts, 4)
        assert len(counts) == 8
        groups = [[labels[index] for index in batch[start : start + 4]] for start in range(0, 32, 4)]
        assert all(len(set(group)) == 1 for group in groups)


def test_an_epoch_shows_every_image_about_once() -> None:
    labels = [0] * 37 + [1] * 50 + [2] * 41 + [3] * 13
    seen = Counter(index for batch in batches(labels, 16, 4) for index in batch)
    assert len(seen) >= 0.9 * len(labels)
    # Only what fills up a class's last group is seen twice.
    assert max(seen.values()) <= 2
    assert sum(count - 1 for count in seen.values()) <= 4 * 3


def test_fewer_classes_than_a_batch_has_groups_come_several_times() -> None:
    labels = [0] * 40 + [1] * 40
    for batch in batches(labels, 32, 4)[:-1]:
        assert Counter(labels[index] for index in batch) == {0: 16, 1: 16}


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    labels = np.arange(100) % 5
    first = class_batches_order(labels, 10, 2, seed=0, epoch=1)
    np.random.seed(5)  # the global generator must not matter
    assert class_batches_order(labels, 10, 2, seed=0, epoch=1) == first
    assert class_batches_order(labels, 10, 2, seed=0, epoch=2) != first
    assert class_batches_order(labels, 10, 2, seed=1, epoch=1) != first


def test_a_class_of_one_image_repeats_it() -> None:
    labels = [0] * 8 + [1]
    chosen = Counter(index for batch in batches(labels, 8, 4) for index in batch)
    assert chosen[8] == 4


def test_no_batch_is_of_one_class() -> None:
    labels = [0] * 100 + [1] * 8
    for batch in batches(labels, 16, 4):
        assert len({labels[index] for index in batch}) == 2


@pytest.mark.parametrize(
    ("labels", "batch_size", "per_class", "message"),
    [
        ([0, 1], 10, 4, "--batch-size is 10 with 4 images per class"),
        ([0, 1], 4, 4, "at least twice as many"),
        ([0, 1], 4, 1, "at least 2 images per class"),
        ([3, 3, 3], 8, 2, "of one class"),
    ],
)
def test_what_does_not_divide_is_refused(
    labels: list[int], batch_size: int, per_class: int, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        class_batches_order(np.array(labels), batch_size, per_class, seed=0, epoch=0)
