"""Where commands write their files: what is known to fail is said before the work, the rest after it."""

import os
from pathlib import Path

import click
import pytest

from service.cli.output_paths import check_replaceable, check_writable, replaced
from tests.service.cli.conftest import Fovea

NOBODY = ("--address", "127.0.0.1:1")


@pytest.mark.parametrize(
    "command",
    [
        "embed red.png --output absent/file.npz",
        "index export absent/file.parquet",
        "index duplicates . --page absent/file.html",
        "index evaluate . --sheet absent/file.png",
        "index evaluate . --sheet absent/file.html",
    ],
)
def test_a_missing_folder_is_said_before_a_server_is_asked(
    fovea_command: Fovea, pictures: Path, command: str
) -> None:
    done = fovea_command(*command.split(), *NOBODY)
    assert done.exit_code == 2, done.output
    name = "absent/file" + Path(command).suffix
    assert f"{name} can't be written: there is no folder absent" in " ".join(done.stderr.split())
    assert ".partial" not in done.stderr
    assert done.stdout == ""


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there.png"
    there.touch()
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, _: path == there)
    check_writable(there)
    for check, file in ((check_replaceable, there), (check_writable, tmp_path / "new.png")):
        with pytest.raises(click.BadParameter, match=rf"{file} can't be written: permission denied"):
            check(file)


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="x can't be written: File name too long"):
        check_replaceable(tmp_path / ("n" * 300) / "x")


def test_an_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")

    def fill_the_disk() -> None:
        with replaced(file) as partial:
            partial.write_text("ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(click.ClickException, match=r"file\.txt can't be written: No space left on device"):
        fill_the_disk()
    assert file.read_text() == "old"
    with replaced(file) as partial:
        partial.write_text("new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]
