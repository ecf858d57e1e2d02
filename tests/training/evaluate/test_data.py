"""What is scored on: which part, whose names, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.data_sources import image_rows, write_csv, write_shards
from tests.training.noisy import NAMES, Noisy
from tests.training.pictures import CLASSES, write_class_folders
from training.data import digits
from training.errors import DataError, SettingError
from training.evaluate.data import LabelledPictures, matched, open_pictures
from training.splits import Split


def sizes(pictures: LabelledPictures) -> list[int]:
    return list(map(int, pictures.split.class_counts(len(pictures.classes))))


def test_a_folder_without_parts_is_scored_whole(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", 5)
    pictures = open_pictures(str(root))
    assert (pictures.classes, sizes(pictures), pictures.source) == (CLASSES, [5, 5, 5], f"{root}, all")
    assert pictures.name(0) == "blue/000.jpg"


def test_of_parts_the_one_for_scoring_is_taken(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for part, count in (("train", 4), ("valid", 3), ("test", 2)):
        write_class_folders(root / part, count, seed=count)
    assert sizes(open_pictures(str(root))) == [2, 2, 2]
    assert sizes(open_pictures(str(root), "val")) == [3, 3, 3]
    assert sizes(open_pictures(str(root), "all")) == [9, 9, 9]
    shutil.rmtree(root / "test")
    assert sizes(open_pictures(str(root))) == [3, 3, 3]
    with pytest.raises(SettingError, match=r"--split is 'test'; .*data has train, val"):
        open_pictures(str(root), "test")


def test_a_part_of_a_folder_without_parts_is_the_one_of_fit(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "data", 20)
    parts = [open_pictures(str(root), part) for part in ("train", "val", "test")]
    assert [sizes(part)[0] for part in parts] == [14, 3, 3]
    assert len({part.name(index) for part in parts for index in range(len(part.split))}) == 60


def test_digits() -> None:
    assert len(open_pictures("digits").split) == len(digits().test)
    assert len(open_pictures("digits", "all").split) == 1797
    assert open_pictures("digits").name(3) == "#3"


def test_tables_and_shards_have_names_of_their_own(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 4)
    table = write_csv(tmp_path / "data.csv", ["path", "label"], rows)
    pictures = open_pictures(str(table))
    assert sizes(pictures) == [4, 4, 4]
    assert pictures.name(0) in {path for path, _ in rows}
    halves = [[*row, "test" if index % 2 else "train"] for index, row in enumerate(rows)]
    parted = write_csv(tmp_path / "parted.csv", ["path", "label", "split"], halves)
    assert len(open_pictures(str(parted)).split) == 6
    shards = open_pictures(str(write_shards(tmp_path, rows, ["a-000.tar", "a-001.tar"])))
    assert sizes(shards) == [4, 4, 4]
    assert shards.name(0).startswith("a-000.tar/")


def test_a_runs_folder_means_its_own_pictures(noisy: Noisy) -> None:
    test, val = open_pictures(str(noisy.run)), open_pictures(str(noisy.run), "val")
    assert test.classes == NAMES
    names = [{part.name(index) for index in range(len(part.split))} for part in (test, val)]
    assert not names[0] & names[1]
    with pytest.raises(SettingError, match="--split is 'all', which a run doesn't have"):
        open_pictures(str(noisy.run), "all")


def labelled(classes: tuple[str, ...], labels: object) -> LabelledPictures:
    labels = np.array(labels)
    return LabelledPictures(Split(np.zeros((len(labels), 2, 2, 3), np.uint8), labels), classes, "made up")


def test_labels_become_the_models_by_name() -> None:
    pictures = labelled(("eel", "cat"), [0, 1, 1])
    assert matched(pictures, ("ant", "cat", "dog", "eel"), "single_label").labels.tolist() == [3, 1, 1]
    assert matched(pictures, ("cat", "eel"), "multi_label").labels.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert matched(pictures, (), "embedding").labels.tolist() == [0, 1, 1]
    several = labelled(("eel", "cat"), [[1, 0], [1, 1]])
    assert matched(several, ("cat", "dog", "eel"), "multi_label").labels.tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    ("classes", "labels", "complaint"),
    [
        (("cat", "emu"), ("cat", "dog"), "the model has no class 'emu'; its 2 classes are cat, dog"),
        (("crane",), ("crane", "dog", "crane"), "the model has 'crane' twice among its classes"),
    ],
)
def test_classes_that_the_model_has_not_once_are_refused(
    classes: tuple[str, ...], labels: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(SettingError, match=complaint):
        matched(labelled(classes, [0]), labels, "single_label")


def test_the_models_own_order_is_taken_even_with_a_name_twice() -> None:
    pictures = labelled(("crane", "dog", "crane"), [2, 0])
    assert matched(pictures, ("crane", "dog", "crane"), "single_label").labels.tolist() == [2, 0]


def test_several_labels_for_a_model_of_one_are_refused() -> None:
    with pytest.raises(SettingError, match="several labels an image; the model gives each just one"):
        matched(labelled(("cat", "dog"), [[1, 1]]), ("cat", "dog"), "single_label")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no images in folders named like classes"):
        open_pictures(str(tmp_path))
    with pytest.raises(DataError, match="can't be read"):
        open_pictures(str(tmp_path / "gone"))
