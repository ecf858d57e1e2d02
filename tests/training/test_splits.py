"""Who learns, who chooses and who judges: disjoint, the same every time, every class in each."""

from collections import Counter

import numpy as np
import pytest

from training.data import digit_arrays, digits, open_dataset
from training.errors import DataError
from training.splits import partition


def keys(count: int) -> list[str]:
    return [f"cats/{number}.jpg" for number in range(count)]


@pytest.mark.parametrize("count", [3, 4, 5, 7, 10, 20, 101])
def test_parts_are_disjoint_complete_and_stratified(count: int) -> None:
    labels = [0] * count + [1] * (3 * count)
    parts = partition(labels, keys(4 * count), (0.15, 0.15), str)
    assert sorted(index for part in parts for index in part) == list(range(4 * count))
    for part, share in zip(parts, (0.15, 0.15, 0.7), strict=True):
        counts = Counter(labels[index] for index in part)
        assert abs(counts[0] - share * count) <= 1.1
        assert abs(counts[1] - share * 3 * count) <= 1.1
        assert min(counts[0], counts[1]) >= 1


def test_a_picture_stays_in_its_part_whatever_the_order_it_is_found_in() -> None:
    labels, names = [0] * 50, keys(50)
    forward = partition(labels, names, (0.15, 0.15), str)
    backward = partition(labels, names[::-1], (0.15, 0.15), str)
    for part, other in zip(forward, backward, strict=True):
        assert {names[i] for i in part} == {names[::-1][i] for i in other}


def test_the_parts_are_these_on_every_machine() -> None:
    test, val, train = partition([0] * 8, keys(8), (0.25, 0.25), str)
    # Worked out with sha256sum over the names.
    assert (test, val, train) == ([4, 7], [2, 3], [0, 1, 5, 6])


def test_a_class_with_too_few_pictures_is_named() -> None:
    with pytest.raises(DataError, match=r"class 'b' has 2 usable images; at least 3 are needed"):
        partition([0, 0, 0, 1, 1], keys(5), (0.15, 0.15), lambda label: "ab"[label])


def test_digits_hold_a_quarter_out() -> None:
    dataset = digits()
    sizes = {name: len(getattr(dataset, name)) for name in ("train", "val", "test")}
    assert sum(sizes.values()) == 1797
    assert abs(sizes["test"] - 1797 / 4) <= 5
    assert dataset.classes == tuple("0123456789")
    for split in (dataset.train, dataset.val, dataset.test):
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.max() + 1
    assert not dataset.defaults.mirror


def test_digits_are_disjoint_and_whole() -> None:
    from sklearn.datasets import load_digits

    ours = [
        tuple(image[:, :, 0].ravel()) for name in ("train", "val", "test") for image in digit_arrays(name)[0]
    ]
    theirs = [tuple(np.round(image.ravel() * 255 / 16).astype(np.uint8)) for image in load_digits().images]
    assert sorted(ours) == sorted(theirs)


def test_digit_arrays_are_pictures() -> None:
    images, labels = digit_arrays("test")
    assert images.dtype == np.uint8
    assert images.shape == (len(labels), 8, 8, 3)
    assert (int(images.min()), int(images.max())) == (0, 255)
    again, _ = digit_arrays("test")
    assert np.array_equal(images, again)
    with pytest.raises(ValueError, match="'all'"):
        digit_arrays("all")


def test_digits_is_a_data_set_by_name() -> None:
    assert open_dataset("digits").name == "digits"


def test_copies_count_as_one_and_stay_together_in_any_order() -> None:
    contents = [bytes([number // 3]) for number in range(60)]
    names = keys(60)
    forward = partition([0] * 60, names, (0.15, 0.15), str, contents)
    assert [len(part) for part in forward] == [9, 9, 42]
    assert sum(len({contents[index] for index in part}) for part in forward) == 20
    backward = partition([0] * 60, names[::-1], (0.15, 0.15), str, contents[::-1])
    for part, other in zip(forward, backward, strict=True):
        assert {names[i] for i in part} == {names[::-1][i] for i in other}
