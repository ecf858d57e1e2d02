"""Broken files are told in one list before anything is scored, and left out where that was asked for."""

from pathlib import Path

import pytest

from tests.training.data_sources import image_rows, write_csv, write_shards
from tests.training.evaluate.known import pictures
from tests.training.pictures import write_class_folders
from training.errors import BrokenImages, DataError
from training.evaluate.check import check_pictures
from training.evaluate.data import LabelledPictures, open_pictures


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    root = write_class_folders(tmp_path / "data", 20)
    (root / "green" / "004.png").write_bytes(b"no image")
    whole = (root / "red" / "000.jpg").read_bytes()
    (root / "red" / "000.jpg").write_bytes(whole[: len(whole) // 2])
    return root


def names(pictures: LabelledPictures) -> set[str]:
    return {pictures.name(index) for index in range(len(pictures.split))}


def test_all_broken_files_are_told_at_once(broken: Path) -> None:
    with pytest.raises(BrokenImages) as caught:
        check_pictures(open_pictures(str(broken)))
    first, *files, last = str(caught.value).splitlines()
    assert first == f"2 broken image files in {broken}, all:"
    assert [line.split(":")[0] for line in files] == ["  green/004.png", "  red/000.jpg"]
    assert last.endswith("leave them out with --skip-broken.")


def test_they_are_left_out_and_said_to_be(broken: Path) -> None:
    whole = open_pictures(str(broken))
    checked = check_pictures(whole, skip_broken=True)
    assert names(whole) - names(checked) == {"green/004.png", "red/000.jpg"}
    assert checked.split.class_counts(3).tolist() == [20, 19, 19]
    assert [name for name, _ in checked.left_out] == ["green/004.png", "red/000.jpg"]
    assert "left out 2 broken image files:\n  green/004.png: " in checked.notes[-1]
    assert check_pictures(checked) is checked


def test_what_has_to_be_divided_is_checked_by_that(broken: Path) -> None:
    with pytest.raises(BrokenImages, match=r"2 broken image files"):
        open_pictures(str(broken), "test")
    pictures = open_pictures(str(broken), "test", skip_broken=True)
    assert [name for name, _ in pictures.left_out] == ["green/004.png", "red/000.jpg"]
    assert check_pictures(pictures) is pictures


def test_names_of_tables_stay_with_their_pictures(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, 3)
    (tmp_path / rows[4][0]).write_bytes(b"no image")
    table = write_csv(tmp_path / "data.csv", ["path", "label"], rows)
    checked = check_pictures(open_pictures(str(table)), skip_broken=True)
    assert [checked.name(index) for index in range(8)] == [path for path, _ in rows[:4] + rows[5:]]
    assert [str(source) for source in checked.split.sources] == [
        str(tmp_path / path) for path, _ in rows[:4] + rows[5:]
    ]


def test_archives_that_end_early_are_broken_too(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, image_rows(tmp_path, 4), ["a-000.tar", "a-001.tar"])
    archive = shards / "a-001.tar"
    archive.write_bytes(archive.read_bytes()[:6000])
    with pytest.raises(BrokenImages, match=r"a-001\.tar"):
        check_pictures(open_pictures(str(shards)))
    checked = check_pictures(open_pictures(str(shards)), skip_broken=True)
    assert any("a-001.tar" in name for name, _ in checked.left_out)
    assert 6 <= len(checked.split) < 12


def test_pixels_in_memory_need_no_check() -> None:
    made = pictures(("a", "b"), [0, 1])
    assert check_pictures(made) is made


def test_nothing_but_broken_files_is_an_error_even_so(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="no image is left; left out 1 broken image file"):
        check_pictures(open_pictures(str(tmp_path)), skip_broken=True)
