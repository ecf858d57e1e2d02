"""fovea index and search, as a person reads them."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import training.image_files
from service.cli.image_files import SUFFIXES
from tests.client.pictures import BROKEN, file_bytes, of_class
from tests.packages import LABELS
from tests.service.cli.conftest import Fovea


@pytest.fixture
def album(tmp_path: Path, fovea_command: Fovea, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with 20 pictures in each of three class folders; the default collection goes with it."""
    for index, label in enumerate(LABELS):
        (tmp_path / "album" / label).mkdir(parents=True)
        for number in range(20):
            picture = file_bytes(of_class(index, 100 + 5 * number))
            (tmp_path / "album" / label / f"{number:02d}.png").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "album"
    fovea_command("index", "drop", "--yes")


def test_index_a_folder_and_search_it(fovea_command: Fovea, album: Path) -> None:
    added = fovea_command("index", "add", "album")
    assert added.exit_code == 0, added.output
    assert added.stdout == (
        "indexed 60 images of album; collection 'default' has 60 images\n"
        "next: fovea search album/blue/00.png\n"
    )
    assert "60/60" in added.stderr
    assert fovea_command("index", "count").stdout == "60\n"

    found = fovea_command("search", "album/green/03.png", "--top-k", "3")
    assert found.exit_code == 0
    header, *rows = found.stdout.splitlines()
    assert header.split() == ["SCORE", "LABEL", "ID", "IMAGE"]
    assert rows[0].split() == ["1.0000", "green", "green/03.png", str(album / "green" / "03.png")]
    assert [row.split()[1] for row in rows] == ["green"] * 3

    by_id = fovea_command("search", "--id", "blue/07.png", "--top-k", "60", "--json")
    neighbors = [json.loads(line) for line in by_id.stdout.splitlines()]
    assert len(neighbors) == 59
    assert [neighbor["attributes"]["label"] for neighbor in neighbors[:19]] == ["blue"] * 19
    scores = [neighbor["score"] for neighbor in neighbors]
    assert scores == sorted(scores, reverse=True)


def test_indexing_again_replaces(fovea_command: Fovea, album: Path) -> None:
    for _ in range(2):
        assert fovea_command("index", "add", album).exit_code == 0
    assert fovea_command("index", "count").stdout == "60\n"


def test_broken_files_are_listed_at_the_end(fovea_command: Fovea, album: Path) -> None:
    (album / "blue" / "00.png").write_bytes(BROKEN)
    (album / "red" / "empty.jpg").write_bytes(b"")
    (album / "notes.txt").write_text("no image")
    (album / ".hidden.png").write_bytes(BROKEN)
    (album / "Top.PNG").write_bytes(file_bytes(of_class(1)))
    added = fovea_command("index", "add", "album")
    assert added.exit_code == 1
    assert "indexed 60 images of album" in added.stdout
    assert "next: fovea search album/Top.PNG" in added.stdout
    errors = added.stderr.splitlines()
    assert "2 of 62 files weren't indexed:" in errors
    assert [line.partition(":")[0] for line in errors[-2:]] == ["blue/00.png", "red/empty.jpg"]
    top = fovea_command("search", "--id", "green/00.png", "--json", "--top-k", "60")
    (at_the_top,) = [line for line in map(json.loads, top.stdout.splitlines()) if line["id"] == "Top.PNG"]
    top_file = album / "Top.PNG"
    assert at_the_top["attributes"] == {
        "path": str(top_file),
        "uri": top_file.as_uri(),
        "sha256": hashlib.sha256(top_file.read_bytes()).hexdigest(),
        "size_bytes": top_file.stat().st_size,
        "modified_ns": top_file.stat().st_mtime_ns,
    }


def test_an_empty_folder_says_what_it_looked_for(fovea_command: Fovea, tmp_path: Path) -> None:
    done = fovea_command("index", "add", tmp_path)
    assert done.exit_code == 1
    assert f"no image files under {tmp_path}; looked for .bmp .gif .jfif .jpe .jpeg" in done.stderr


def test_what_training_reads_is_what_is_indexed() -> None:
    assert SUFFIXES == training.image_files.SUFFIXES


def test_another_model_is_refused(fovea_command: Fovea, album: Path) -> None:
    named = ("--collection", "by-model")
    try:
        assert fovea_command("index", "add", album / "red", "--model", "broken", *named).exit_code == 0
        refused = fovea_command("index", "add", album / "red", "--model", "colors", *named)
        assert refused.exit_code == 1
        assert "collection 'by-model' has vectors of broken version 1, not of colors" in refused.stderr
        found = fovea_command("search", album / "red" / "00.png", "--top-k", "1", *named)
        assert found.stdout.splitlines()[0].split() == ["SCORE", "ID", "IMAGE"]  # no class folders, no labels
        again = fovea_command("index", "add", album / "red", *named)
        assert again.exit_code == 0
        assert "--collection by-model" in again.stdout
    finally:
        fovea_command("index", "drop", "--yes", *named)
    unknown = fovea_command("index", "add", album / "red", "--model", "missing", *named)
    assert fovea_command("index", "count", *named).exit_code == 1
    assert unknown.exit_code == 1
    assert "missing" in unknown.stderr
    assert "colors" in unknown.stderr


def test_list_and_drop(fovea_command: Fovea, album: Path) -> None:
    fovea_command("index", "add", "album/red")
    header, *rows = fovea_command("index", "list").stdout.splitlines()
    assert header.split() == ["COLLECTION", "ITEMS", "DIMENSION", "METRIC", "MODEL", "ATTRIBUTES"]
    (row,) = [row for row in rows if row.startswith("default ")]
    assert row.split()[1:7] == ["20", "24", "cosine", "colors", "version", "1"]
    assert row.endswith("  label string, path string, sha256 string, uri string")
    listed = [json.loads(line) for line in fovea_command("index", "list", "--json").stdout.splitlines()]
    assert {each["name"]: each["count"] for each in listed}["default"] == 20

    kept = fovea_command("index", "drop", given="n\n")
    assert kept.exit_code == 1
    assert "drop collection 'default' with 20 images? [y/N]" in kept.stdout
    assert kept.stderr == "Aborted!\n"
    silent = fovea_command("index", "drop", given="")
    assert silent.exit_code == 1
    assert silent.stderr == "Error: nobody answered; --yes drops it without asking\n"
    assert fovea_command("index", "count").stdout == "20\n"
    assert fovea_command("index", "drop", "--yes").stdout == "dropped collection 'default' with 20 images\n"
    gone = fovea_command("index", "count")
    assert gone.exit_code == 1
    assert "default" in gone.stderr


def test_searching_before_indexing_says_what_to_do(fovea_command: Fovea, album: Path) -> None:
    done = fovea_command("search", "album/red/00.png", "--collection", "none-yet")
    assert done.exit_code == 1
    assert "none-yet" in done.stderr
    assert "index a folder of photos with `fovea index add FOLDER`" in done.stderr


def test_search_takes_a_photo_or_an_id(fovea_command: Fovea, album: Path) -> None:
    for arguments in ((), ("album/red/00.png", "--id", "red/00.png")):
        done = fovea_command("search", *arguments)
        assert done.exit_code == 2
        assert "give either a photo or --id" in done.stderr
    fovea_command("index", "add", "album/red")
    absent = fovea_command("search", "absent.png")
    assert absent.exit_code == 1
    assert absent.stderr == "Error: absent.png can't be read: No such file or directory\n"
    unknown = fovea_command("search", "--id", "absent.png")
    assert unknown.exit_code == 1
    assert "absent.png" in unknown.stderr
