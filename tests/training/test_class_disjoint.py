"""Val and test hold classes that train never sees, and no image twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.pictures import picture, write_class_folders
from training.class_disjoint import hold_out, hold_out_last, trained_classes
from training.data import open_dataset
from training.errors import DataError, SettingError
from training.splits import Dataset, Defaults, Split


def in_memory(per_class: int = 12, classes: int = 5) -> Dataset:
    """Pictures of noise, a fifth each in val and test."""
    labels = np.repeat(np.arange(classes), per_class)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
    part = np.arange(len(labels)) % 5
    train, val, test = (Split(pixels[chosen], labels[chosen]) for chosen in (part > 1, part == 0, part == 1))
    names = tuple("abcde"[:classes])
    return Dataset("noise", names, train, val, test, "by hand", Defaults())


def contents(split: Split) -> list[bytes]:
    return [np.asarray(source).tobytes() for source in split.sources]


def test_no_class_and_no_image_stands_on_both_sides() -> None:
    before = in_memory()
    after = hold_out(before, 2)
    assert after.classes == ("a", "b", "c", "d", "e")
    assert trained_classes(after) == 3
    assert trained_classes(before) == 5
    assert set(after.train.labels) == {0, 1, 2}
    assert set(after.val.labels) == set(after.test.labels) == {3, 4}
    val, test = set(contents(after.val)), set(contents(after.test))
    assert not val & test
    # All images of the held-out classes are there, half each, and train keeps only its own.
    everything = [*contents(before.train), *contents(before.val), *contents(before.test)]
    labels = np.concatenate([before.train.labels, before.val.labels, before.test.labels])
    assert val | test == {content for content, label in zip(everything, labels, strict=True) if label >= 3}
    assert (
        np.bincount(after.val.labels).tolist() == np.bincount(after.test.labels).tolist() == [0, 0, 0, 6, 6]
    )
    assert len(after.train) == int((before.train.labels < 3).sum())
    assert after.rule == (
        "by hand; of these, train keeps 3 classes, and all images of the other 2 (d, e) are val or test, "
        "half each, by the SHA-256 of their content"
    )


def test_classes_held_out_by_name_are_moved_behind_the_others() -> None:
    before = in_memory()
    after = hold_out(before, ["d", "b"])
    assert after.classes == ("a", "c", "e", "b", "d")
    # Each picture still has the class of its name.
    named = {
        content: before.classes[label]
        for split in (before.train, before.val, before.test)
        for content, label in zip(contents(split), split.labels, strict=True)
    }
    for split in (after.train, after.val, after.test):
        for content, label in zip(contents(split), split.labels, strict=True):
            assert after.classes[label] == named[content]


def test_a_runs_splits_are_found_again_whatever_the_order() -> None:
    before = in_memory()
    after = hold_out(before, 2)
    turned = [
        Split(np.asarray(split.sources)[::-1], split.labels[::-1])
        for split in (before.train, before.test, before.val)
    ]
    train, val, test = hold_out_last(turned, after.classes, 2)
    for found, wanted in ((train, after.train), (val, after.val), (test, after.test)):
        assert sorted(contents(found)) == sorted(contents(wanted))


def test_copies_stay_together() -> None:
    before = in_memory()
    twice = np.concatenate([np.asarray(before.train.sources)] * 2)
    dataset = replace(before, train=Split(twice, np.concatenate([before.train.labels] * 2)))
    after = hold_out(dataset, 2)
    assert not set(contents(after.val)) & set(contents(after.test))


def test_a_folder_is_divided_by_its_files_content(tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "data", 12)
    (data / "yellow").mkdir()
    for number in range(12):
        picture(1, 5000 + number).save(data / "yellow" / f"{number}.png")
    after = hold_out(open_dataset(str(data)), 2)
    assert after.classes == ("blue", "green", "red", "yellow")
    folders = [
        {Path(str(source)).parent.name for source in split.sources} for split in (after.train, after.val)
    ]
    assert folders == [{"blue", "green"}, {"red", "yellow"}]
    moved = data.rename(tmp_path / "moved")
    again = hold_out(open_dataset(str(moved)), 2)
    names = [[Path(str(source)).name for source in each.test.sources] for each in (after, again)]
    assert names[0] == names[1]
    assert len(names[0]) == 12


@pytest.mark.parametrize(
    ("holdout", "message"),
    [
        (0, "is 0 of 5 classes; expected at least 2, for among images of one class every answer is right"),
        (1, "is 1 of 5 classes; expected at least 2, for .*, and at least 2 left to train on"),
        (4, "is 4 of 5 classes; expected .*, and at least 2 left to train on"),
        (["a", "zebra"], "names 'zebra'; the classes are a, b, c, d, e"),
        ([], "names 0 of 5 classes"),
        (["a"], "names 1 of 5 classes; expected at least 2"),
        (["a", "b", "c", "d"], "names 4 of 5 classes; expected .*, and at least 2 left to train on"),
    ],
)
def test_what_leaves_nothing_to_learn_or_to_tell_apart_is_refused(
    holdout: int | list[str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        hold_out(in_memory(), holdout)


def test_classes_too_small_to_retrieve_are_refused() -> None:
    with pytest.raises(DataError, match="held-out class 'd' has 3 different images; expected at least 4"):
        hold_out(in_memory(per_class=3), 2)
    after = hold_out(in_memory(per_class=4), 2)
    assert (
        np.bincount(after.val.labels).tolist() == np.bincount(after.test.labels).tolist() == [0, 0, 0, 2, 2]
    )
    with pytest.raises(DataError, match="the images of noise have several"):
        hold_out(replace(in_memory(), task="multi_label"), 2)
