"""Folders of images as people have them."""

from pathlib import Path

import pytest

from tests.training.pictures import CLASSES, picture, write_class_folders
from training.errors import BrokenImages, DataError
from training.folder import read_folder
from training.splits import Dataset, Split


def files(split: Split) -> set[str]:
    return {str(source) for source in split.sources}


def names(root: Path, split: Split) -> set[str]:
    return {Path(str(source)).relative_to(root).as_posix() for source in split.sources}


def assert_disjoint(dataset: Dataset) -> None:
    splits = [files(split) for split in (dataset.train, dataset.val, dataset.test)]
    assert sum(map(len, splits)) == len(set.union(*splits))


def test_a_flat_folder_is_split_by_class(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 20)
    (root / "red" / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    dataset = read_folder(root)
    assert dataset.classes == CLASSES
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [42, 9, 9]
    assert_disjoint(dataset)
    for split in (dataset.train, dataset.val, dataset.test):
        for source, label in zip(split.sources, split.labels.tolist(), strict=True):
            assert Path(str(source)).parent.name == CLASSES[label]


def test_the_split_depends_on_relative_paths_alone(tmp_path: Path) -> None:
    one = write_class_folders(tmp_path / "one", 10)
    two = write_class_folders(tmp_path / "two", 10, seed=77)
    first, second = read_folder(one), read_folder(two)
    for name in ("train", "val", "test"):
        assert names(one, getattr(first, name)) == names(two, getattr(second, name))


def test_nested_files_belong_to_the_class_above(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 3)
    (root / "red" / "2024" / "may").mkdir(parents=True)
    picture(2, 1).save(root / "red" / "2024" / "may" / "A.JPG")
    dataset = read_folder(root)
    everything = files(dataset.train) | files(dataset.val) | files(dataset.test)
    assert str(root / "red" / "2024" / "may" / "A.JPG") in everything


@pytest.mark.parametrize("scored", ["val", "test"])
def test_of_train_and_one_more_the_latter_is_reported(tmp_path: Path, scored: str) -> None:
    root = tmp_path / "photos"
    write_class_folders(root / "train", 10)
    write_class_folders(root / scored, 4, seed=9)
    dataset = read_folder(root)
    assert files(dataset.test) == {str(path) for path in (root / scored).rglob("*.*")}
    assert [len(split) for split in (dataset.train, dataset.val)] == [24, 6]
    assert all(name.startswith("train/") for name in names(root, dataset.train) | names(root, dataset.val))
    assert_disjoint(dataset)
    assert f"test is {scored}/ as given" in dataset.rule


def test_train_val_and_test_are_taken_as_given(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        write_class_folders(root / name, count, seed=count)
    dataset = read_folder(root)
    for name in ("train", "val", "test"):
        assert files(getattr(dataset, name)) == {str(path) for path in (root / name).rglob("*.*")}


def test_broken_files_are_all_listed_with_reasons(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 10)
    (root / "red" / "empty.png").write_bytes(b"")
    (root / "blue" / "text.jpg").write_text("no picture")
    whole = (root / "green" / "001.png").read_bytes()
    (root / "green" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenImages) as caught:
        read_folder(root)
    message = str(caught.value)
    assert message.startswith("3 broken image files in ")
    assert "blue/text.jpg: not an image" in message
    assert "green/cut.png: the PNG image is broken or cut short" in message
    assert "red/empty.png: the image is empty" in message
    assert "--skip-broken" in message

    dataset = read_folder(root, skip_broken=True)
    assert dataset.skipped == 3
    everything = files(dataset.train) | files(dataset.val) | files(dataset.test)
    assert len(everything) == 30


def test_a_class_without_enough_usable_images_is_named(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 3)
    (root / "red" / "000.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="class 'red' has 2 usable images; at least 3"):
        read_folder(root, skip_broken=True)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere'; expected 'digits' or an existing folder"):
        read_folder(tmp_path / "nowhere")
    root = tmp_path / "photos"
    (root / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds 1 class folder \('cats'\); expected at least 2"):
        read_folder(root)
    (root / "dogs").mkdir()
    with pytest.raises(DataError, match=r"no usable image was found; expected \.bmp"):
        read_folder(root)
    picture(0, 0).save(root / "cats" / "a.png")
    with pytest.raises(DataError, match="no usable image was found for 'dogs'"):
        read_folder(root)


def test_classes_that_training_has_not_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_class_folders(root / "train", 3)
    write_class_folders(root / "val", 3)
    (root / "val" / "violet").mkdir()
    with pytest.raises(DataError, match=r"val has classes that train/ hasn't: violet"):
        read_folder(root)


def test_the_check_shows_how_far_it_is(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    seen: list[tuple[int, str]] = []

    def track(items: object, total: int) -> object:
        for path, reason in items:  # type: ignore[attr-defined]  # an iterable of pairs
            seen.append((total, reason))
            yield path, reason

    read_folder(root, track=track)  # type: ignore[arg-type]  # as above
    assert seen == [(12, "")] * 12
