"""Images for calls: found, read, turned into pixels, and errors that name the file."""

from pathlib import Path

import numpy as np
import pytest

from service.cli.bench.payload import RawPixels, Size
from service.cli.bench.pictures import NoPictures, find_files, read_pictures
from tests.client.pictures import BROKEN, file_bytes, of_class


def test_folders_and_files_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(b"x")
    single = tmp_path / "without-suffix"
    single.write_bytes(b"x")
    assert find_files([single, tmp_path / "photos"]) == [single, folder / "a.JPG", folder / "b.png"]


def test_nothing_to_send_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoPictures, match="no image files under"):
        find_files([tmp_path])
    with pytest.raises(NoPictures, match="neither a file nor a folder"):
        find_files([tmp_path / "absent"])


def test_pixels_are_made_of_the_wanted_size(tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(file_bytes(of_class(0, size=20)))
    (raw,) = read_pictures([file], Size(4, 6), 10**6)
    assert isinstance(raw, RawPixels)
    assert (raw.size, len(raw.data)) == (Size(4, 6), 4 * 6 * 3)
    np.testing.assert_array_equal(np.frombuffer(raw.data, np.uint8).reshape(-1, 3)[0], [200, 10, 10])


def test_files_go_as_they_are_and_memory_is_bounded(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(4)]
    for file in files:
        file.write_bytes(b"x" * 100)
    assert read_pictures(files, None, 250) == [b"x" * 100] * 2
    assert read_pictures(files, None, 10) == [b"x" * 100]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(BROKEN)
    assert read_pictures([file], None, 10**6) == [BROKEN]  # its server will say so
    with pytest.raises(NoPictures, match=r"broken\.jpg: "):
        read_pictures([file], Size(8, 8), 10**6)
    with pytest.raises(NoPictures, match="can't be read: No such file"):
        read_pictures([tmp_path / "absent"], None, 10**6)
