"""Pictures with several labels, divided."""

import numpy as np
import pytest

from training.errors import DataError
from training.splits import partition
from training.stratify import stratify


def keys(count: int) -> list[str]:
    return [f"{number}.jpg" for number in range(count)]


def own(count: int) -> list[bytes]:
    return [number.to_bytes(4) for number in range(count)]


def random_labels(count: int, classes: int, seed: int) -> list[tuple[int, ...]]:
    """The first class is on most pictures, the last one on about one in fifty; labels go together."""
    generator = np.random.default_rng(seed)
    chances = np.geomspace(0.6, 0.02, classes)
    linked = generator.random((count, classes)) < chances
    linked[:, -2] |= linked[:, -1]
    return [tuple(np.flatnonzero(row).tolist()) for row in linked]


@pytest.mark.parametrize("seed", range(5))
def test_every_part_gets_its_share_of_every_class(seed: int) -> None:
    labels = random_labels(800, 12, seed)
    parts = stratify(labels, keys(800), (0.15, 0.15), str, own(800))
    assert sorted(index for part in parts for index in part) == list(range(800))
    assert [len(part) for part in parts] == [120, 120, 560]
    for label in range(12):
        total = sum(label in each for each in labels)
        for part, share in zip(parts, (0.15, 0.15, 0.7), strict=True):
            count = sum(label in labels[index] for index in part)
            assert abs(count - share * total) <= max(2, 0.05 * total)


def test_parts_depend_on_keys_and_labels_and_not_on_the_order() -> None:
    labels, names, contents = random_labels(400, 6, 7), keys(400), own(400)
    forward = stratify(labels, names, (0.15, 0.15), str, contents)
    backward = stratify(labels[::-1], names[::-1], (0.15, 0.15), str, contents[::-1])
    for part, other in zip(forward, backward, strict=True):
        assert {names[index] for index in part} == {names[::-1][index] for index in other}


def test_of_one_label_each_it_is_the_partition() -> None:
    classes = [number % 3 for number in range(60)]
    expected = partition(classes, keys(60), (0.15, 0.15), str, own(60))
    found = stratify([(label,) for label in classes], keys(60), (0.15, 0.15), str, own(60))
    assert [len(part) for part in found] == [len(part) for part in expected]
    for part in found:
        assert np.bincount([classes[index] for index in part]).tolist() == [len(part) // 3] * 3


def test_copies_stay_together_and_count_as_one() -> None:
    labels = [each for each in random_labels(400, 4, 1) for _ in range(3)]
    contents = [content for content in own(400) for _ in range(3)]
    parts = stratify(labels, keys(1200), (0.15, 0.15), str, contents)
    assert [len(part) for part in parts] == [180, 180, 840]
    for part in parts:
        assert len({contents[index] for index in part}) == len(part) // 3


def test_pictures_without_labels_are_dealt_out_too() -> None:
    parts = stratify([()] * 20, keys(20), (0.15, 0.15), str, own(20))
    assert [len(part) for part in parts] == [3, 3, 14]


def test_three_pictures_of_a_class_go_to_three_parts() -> None:
    labels: list[tuple[int, ...]] = [(0,)] * 97 + [(0, 1)] * 3
    for part in stratify(labels, keys(100), (0.15, 0.15), str, own(100)):
        assert sum(1 in labels[index] for index in part) == 1


def test_a_class_with_too_few_pictures_is_named() -> None:
    labels = [(0,)] * 8 + [(0, 1)] * 2
    with pytest.raises(DataError, match=r"class 'b' in the train rows has 2 usable images; at least 3"):
        stratify(labels, keys(10), (0.15, 0.15), "ab".__getitem__, own(10), " in the train rows")
    with pytest.raises(DataError, match=r"class 'a' has 2 .* \(1 more classes have fewer than 3\)"):
        stratify([(0, 1)] * 2 + [()] * 8, keys(10), (0.15, 0.15), "ab".__getitem__, own(10))


def test_many_classes_are_divided_quickly_enough_to_count_steps() -> None:
    """Work grows with the labels, not with classes times labels: each picture is dealt out once."""
    calls = 0

    class Counted(tuple[int, ...]):
        def __iter__(self):  # type: ignore[no-untyped-def]  # counts for the test
            nonlocal calls
            calls += 1
            return super().__iter__()

    labels = [Counted(each) for each in random_labels(2000, 200, 3)]
    stratify(labels, keys(2000), (0.15, 0.15), str, own(2000))
    assert calls == 2 * 2000
