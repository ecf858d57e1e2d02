"""Folders of images as people have them."""

import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.pictures import CLASSES, picture, read_folder, write_class_folders
from training.errors import BrokenImages, DataError
from training.image_check import Checked, check_images
from training.image_files import SUFFIXES, find_images
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
    write_class_folders(root / scored, 4, seed=90)
    dataset = read_folder(root)
    assert files(dataset.test) == {str(path) for path in (root / scored).rglob("*.*")}
    assert [len(split) for split in (dataset.train, dataset.val)] == [24, 6]
    assert all(name.startswith("train/") for name in names(root, dataset.train) | names(root, dataset.val))
    assert_disjoint(dataset)
    assert f"test is {scored}/ as given" in dataset.rule


def test_train_val_and_test_are_taken_as_given(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        write_class_folders(root / name, count, seed=100 * count)
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
    (note,) = dataset.notes
    assert note.startswith("left out 3 broken image files:\n  ")
    assert note.splitlines()[1:] == message.splitlines()[1:4]
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

    def track(files: Iterable[Checked], total: int) -> Iterator[Checked]:
        for file in files:
            seen.append((total, file.fault))
            yield file

    read_folder(root, track=track)
    assert seen == [(12, "")] * 12


@pytest.mark.parametrize(
    ("train", "scored", "part"),
    [
        ("train", "valid", "val"),
        ("train", "validation", "val"),
        ("Train", "VAL", "val"),
        ("training", "Testing", "test"),
    ],
)
def test_parts_go_by_several_names_in_any_case(tmp_path: Path, train: str, scored: str, part: str) -> None:
    root = tmp_path / "photos"
    write_class_folders(root / train, 10)
    write_class_folders(root / scored, 4, seed=50)
    dataset = read_folder(root)
    assert dataset.classes == CLASSES
    assert files(dataset.test) == {str(path) for path in (root / scored).rglob("*.*")}
    assert f"test is {scored}/ as given; of each class in {train}/ 15% are val" in dataset.rule


def test_three_parts_by_other_names(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(("Test", "Train", "Validation")):
        write_class_folders(root / name, 3, seed=100 * seed)
    dataset = read_folder(root)
    for name, split in (("Train", dataset.train), ("Validation", dataset.val), ("Test", dataset.test)):
        assert files(split) == {str(path) for path in (root / name).rglob("*.*")}


@pytest.mark.parametrize("names", [("val", "test"), ("Valid", "other"), ("train", "other"), ("train",)])
def test_parts_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(names):
        write_class_folders(root / name, 3, seed=100 * seed)
    with pytest.raises(DataError, match=rf"{names[0]}/ .*with folders of images in it; expected train/ with"):
        read_folder(root)


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(("train", "val", "valid")):
        write_class_folders(root / name, 3, seed=100 * seed)
    with pytest.raises(DataError, match="holds val/ and valid/; expected one of them"):
        read_folder(root)


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "vehicles", 4)
    (root / "red").rename(root / "train")
    assert read_folder(root).classes == ("blue", "green", "train")


def test_a_part_that_is_scored_on_may_lack_classes(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_class_folders(root / "train", 6)
    write_class_folders(root / "val", 3, seed=50)
    for name in ("blue", "red"):
        shutil.rmtree(root / "val" / name)
    dataset = read_folder(root)
    assert dataset.classes == CLASSES
    assert set(dataset.test.labels.tolist()) == {1}
    shutil.rmtree(root / "val" / "green")
    with pytest.raises(DataError, match=r"no usable image was found in val/; expected"):
        read_folder(root)


@pytest.mark.parametrize("link", [False, True], ids=["copies", "links"])
def test_copies_stay_in_one_part(tmp_path: Path, link: bool) -> None:
    root = write_class_folders(tmp_path / "photos", 12)
    for path in sorted(root.rglob("*.*")):
        for number in range(3):
            copy = path.with_name(f"{number}-of-{path.stem}.JPG")
            if link:
                copy.symlink_to(path)
            else:
                shutil.copy(path, copy)
    dataset = read_folder(root)
    parts = [
        {Path(path).read_bytes() for path in files(split)}
        for split in (dataset.train, dataset.val, dataset.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 36
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [96, 24, 24]


def test_copies_of_one_image_are_not_three(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    for number in range(4):
        (root / "red" / f"{number:03}.png").unlink(missing_ok=True)
        shutil.copy(root / "red" / "000.jpg", root / "red" / f"copy{number}.jpg")
    (root / "red" / "003.jpg").unlink()
    with pytest.raises(DataError, match="class 'red' has 1 different usable image; at least 3"):
        read_folder(root)


def test_what_is_scored_on_is_left_out_of_training(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(("train", "val", "test")):
        write_class_folders(root / name, 5, seed=100 * seed)
    shutil.copy(root / "test" / "red" / "001.png", root / "train" / "red" / "a.png")
    shutil.copy(root / "test" / "red" / "002.png", root / "val" / "red" / "b.png")
    shutil.copy(root / "val" / "blue" / "001.png", root / "train" / "blue" / "c.png")
    dataset = read_folder(root)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [15, 15, 15]
    everything = {Path(name).name for split in (dataset.train, dataset.val) for name in files(split)}
    assert everything.isdisjoint({"a.png", "b.png", "c.png"})
    assert dataset.notes == ("left out 3 images with copies in a part that is scored on",)


def test_the_same_images_as_train_and_val_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_class_folders(root / "train", 5)
    write_class_folders(root / "val", 5)
    with pytest.raises(DataError, match=r"in train/; .*copies of what other parts hold don't count"):
        read_folder(root)


@pytest.mark.parametrize("parts", [("", ""), ("train", "test")], ids=["flat", "parts"])
def test_one_image_in_two_classes_is_refused(tmp_path: Path, parts: tuple[str, str]) -> None:
    root = tmp_path / "photos"
    for seed, part in enumerate(dict.fromkeys(parts)):
        write_class_folders(root / part, 5, seed=100 * seed)
    shutil.copy(root / parts[0] / "blue" / "001.png", root / parts[1] / "red" / "z.png")
    with pytest.raises(DataError) as caught:
        read_folder(root)
    message = str(caught.value)
    assert message.startswith("1 image with the same bytes in two classes; expected one class for each:\n")
    blue, red = (
        Path(part, name).as_posix() for part, name in zip(parts, ("blue/001.png", "red/z.png"), strict=True)
    )
    assert f"{blue} ('blue') and {red} ('red')" in message


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    (root / "red" / "up").symlink_to(root)
    dataset = read_folder(root)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 12
    assert dataset.notes == ("1 file was passed over: 1 link to a folder",)


def test_what_is_no_regular_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    os.mkfifo(root / "red" / "pipe.jpg")
    (root / "red" / "gone.png").symlink_to(root / "nothing")
    # Whoever reads it gets to an end at once, so that a fault here doesn't hang.
    threading.Thread(target=lambda: (root / "red" / "pipe.jpg").write_bytes(b""), daemon=True).start()
    with pytest.raises(BrokenImages) as caught:
        read_folder(root)
    assert "red/pipe.jpg: not a regular file" in str(caught.value)
    assert "red/gone.png: can't be read: No such file or directory" in str(caught.value)
    assert len(files(read_folder(root, skip_broken=True).train)) == 6
    os.close(os.open(root / "red" / "pipe.jpg", os.O_RDONLY | os.O_NONBLOCK))  # lets the writer go


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    for name in ("red/a.HEIC", "red/b.heic", "blue/Thumbs.db", "green/README", "red/.DS_Store"):
        (root / name).write_bytes(b"other")
    picture(0, 5).save(root / "lost.png")
    said = "5 files were passed over: 2 .heic, 1 outside the class folders, 1 .db, 1 without a suffix"
    assert read_folder(root).notes == (said,)
    for path in (root / "red").glob("0*"):
        path.unlink()
    with pytest.raises(DataError, match=rf"for 'red'; expected .* \({said}\)"):
        read_folder(root)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    picture(0, 1).save(tmp_path / f"picture{suffix}")
    assert find_images(tmp_path).paths == [tmp_path / f"picture{suffix}"]
    (checked,) = check_images([tmp_path / f"picture{suffix}"])
    assert checked.fault == ""


@pytest.mark.parametrize("folder", ["", "red", "red/inner"])
def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    root = write_class_folders(tmp_path / "photos", 4)
    (root / "red" / "inner").mkdir()
    shut = root / folder

    def refusing(real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def listing(path: Any) -> Any:  # the administrator, as whom tests may run, is refused nothing
            if Path(path) == shut:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        return listing

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    with pytest.raises(DataError) as caught:
        read_folder(root)
    assert str(caught.value) == f"{shut}: can't be read: Permission denied"
