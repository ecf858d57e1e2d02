"""fovea index evaluate, over a real server on classes that the colors model tells apart."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fovea import Client, Item
from PIL import Image

from service.cli.quality import evaluation
from service.cli.quality.temporary import LEFT_AFTER_S
from tests.client.pictures import BROKEN, file_bytes, of_class
from tests.packages import LABELS
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 pictures of each of three colours in the folder classes, each in its colour's folder."""
    for index, label in enumerate(LABELS):
        (tmp_path / "classes" / label).mkdir(parents=True)
        for number in range(12):
            picture = file_bytes(of_class(index, 100 + 10 * number))
            (tmp_path / "classes" / label / f"{number:02d}.png").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "classes"


def measured(fovea_command: Fovea, *arguments: str | Path) -> dict[str, Any]:
    done = fovea_command("index", "evaluate", *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_classes_that_the_model_tells_apart(fovea_command: Fovea, classes: Path) -> None:
    done = fovea_command("index", "evaluate", "classes")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "36 queries of 3 classes in classes against each other"
    assert [line.split() for line in lines[1:-1]] == [
        ["EXACT", "INDEX"],
        ["Recall@1", "1.0000", "1.0000"],
        ["Recall@5", "1.0000", "1.0000"],
        ["Recall@10", "1.0000", "1.0000"],
        ["precision@10", "1.0000", "1.0000"],
        ["mAP", "1.0000"],
        ["mAP@R", "1.0000"],
    ]
    assert lines[-1] == "the index (flat) finds 100.00% of the true 10 nearest"
    assert "evaluate" not in fovea_command("index", "list").stdout


def test_what_killed_evaluations_left_goes_a_day_later(
    fovea_command: Fovea, classes: Path, server: ServerProcess
) -> None:
    now = int(time.time())
    left = f"fovea-evaluate.{now - LEFT_AFTER_S - 60:x}.0123456789abcdef"
    # Another evaluation's that runs now; one ahead of our clock; and names that only look like them.
    running = f"fovea-evaluate.{now - LEFT_AFTER_S + 600:x}.0123456789abcdef"
    ahead = f"fovea-evaluate.{now + 600:x}.0123456789abcdef"
    others = ["evaluate-20200101-cats", "fovea-evaluate.1.cats", f"my-{left}"]
    with Client(server.address) as client:
        for name in (left, running, ahead, *others):
            client.create_collection(name, dimension=2)
        try:
            measured(fovea_command, "classes")
            there = {collection.name for collection in client.collections()}
            assert {name for name in there if "evaluate" in name} == {running, ahead, *others}
        finally:
            for name in (running, ahead, *others):
                client.drop_collection(name)


def test_a_killed_evaluation_leaves_what_the_next_one_knows(
    fovea_command: Fovea, classes: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a kill, nothing more is sent.
    monkeypatch.setattr(Client, "drop_collection", lambda *_: None)
    measured(fovea_command, "classes")
    monkeypatch.undo()
    monkeypatch.chdir(classes.parent)
    assert fovea_command("index", "list").stdout.count("fovea-evaluate.") == 1
    monkeypatch.setattr("service.cli.quality.temporary.LEFT_AFTER_S", -60)
    measured(fovea_command, "classes")
    assert "fovea-evaluate." not in fovea_command("index", "list").stdout


def test_wrong_labels_cost(fovea_command: Fovea, classes: Path) -> None:
    # Each of the two is alone among another colour: its 11 neighbours are wrong, and it is near none of
    # its own class.
    (classes / "red" / "00.png").rename(classes / "blue" / "from-red.png")
    (classes / "blue" / "00.png").rename(classes / "red" / "from-blue.png")
    found = measured(fovea_command, "classes")
    assert (found["queries"], found["images"], found["classes"]) == (36, 36, 3)
    assert found["exact"]["recall_at_1"] < 1
    assert found["exact"]["recall_at_1"] == found["index"]["recall_at_1"]
    assert found["exact"]["precision_at_10"] == pytest.approx(found["index"]["precision_at_10"])
    assert 0.5 < found["exact"]["map_at_r"] < found["exact"]["map"] < 1
    assert found["index_recall_at_10"] == 1


def test_against_a_collection_a_picture_never_finds_itself(fovea_command: Fovea, classes: Path) -> None:
    named = ("--collection", "evaluated")
    assert fovea_command("index", "add", "classes", *named).exit_code == 0
    try:
        alone = measured(fovea_command, "classes")
        assert measured(fovea_command, "classes", *named) == alone
        # A copy of a file, under another name and with a wrong label, is neither asked for nor found.
        (classes / "green" / "copy.png").write_bytes((classes / "red" / "03.png").read_bytes())
        again = measured(fovea_command, "classes", *named)
        assert again["queries"] == 37
        assert again["images"] == 36
        # Few queries, the same ones each time.
        few = measured(fovea_command, "classes", *named, "--queries", "5")
        assert (few["queries"], few["possible_queries"]) == (5, 37)
        assert measured(fovea_command, "classes", *named, "--queries", "5") == few
    finally:
        fovea_command("index", "drop", "--yes", *named)


def test_wrong_answers_as_near_as_right_ones_count_as_first(fovea_command: Fovea, classes: Path) -> None:
    copies = classes.parent / "copies"
    copies.mkdir()
    for file in classes.rglob("*.png"):
        (copies / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    named = ("--collection", "with-copies")
    assert fovea_command("index", "add", "classes", *named).exit_code == 0
    try:
        assert fovea_command("index", "add", "copies", *named).exit_code == 0
        found = measured(fovea_command, "classes", *named)
        assert (found["images"], found["unlabelled"], found["index_recall_at_10"]) == (72, 36, 1)
        assert found["exact"]["recall_at_1"] == 0
        assert found["exact"].items() >= found["index"].items()
    finally:
        fovea_command("index", "drop", "--yes", *named)


def test_a_picture_is_its_items_file_where_no_digest_is_stored(
    fovea_command: Fovea, classes: Path, server: ServerProcess
) -> None:
    named = ("--collection", "by-path")
    with Client(server.address) as client:
        client.create_collection("by-path", model="colors")
        files = sorted(classes.rglob("*.png"))
        client.upsert(
            "by-path",
            [
                Item(str(n), image=file, attributes={"path": str(file), "label": file.parent.name})
                for n, file in enumerate(files)
            ],
        )
        try:
            assert measured(fovea_command, "classes", *named) == measured(fovea_command, "classes")
            client.upsert("by-path", [Item("extra", image=of_class(0, 77))])
            more = fovea_command("index", "evaluate", "classes", *named)
            assert "without a label, a wrong answer to every query: 1 image\n" in more.stdout
        finally:
            client.drop_collection("by-path")


def test_contact_sheets(fovea_command: Fovea, classes: Path) -> None:
    (classes / "red" / "00.png").rename(classes / "blue" / "from-red.png")
    done = fovea_command("index", "evaluate", "classes", "--sheet", "sheet.png", "--rows", "2", "--worst")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("wrote sheet.png\n")
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 11 * 104
        pixels = np.asarray(sheet)
    # The worst query, the misplaced one, has ten red frames; the right answers of the next are green.
    top, bottom = pixels[41], pixels[41 + 150]
    assert (top == (180, 35, 24)).all(axis=1).sum() > 10 * 100
    assert not (top == (26, 127, 55)).all(axis=1).any()
    assert (bottom == (26, 127, 55)).all(axis=1).any()

    assert fovea_command("index", "evaluate", "classes", "--sheet", "sheet.html").exit_code == 0
    page = Path("sheet.html").read_text("utf-8")
    assert page.count("<section>") == 20
    assert page.count('src="data:image/jpeg;base64,') == 20 * 11
    assert page.count('class="bad"') > 0
    assert "http" not in page
    assert not list(Path().glob(".sheet*"))
    refused = fovea_command("index", "evaluate", "classes", "--sheet", "sheet.pdf")
    assert refused.exit_code == 2
    assert "sheet.pdf is neither a .png nor a .html file" in refused.stderr


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_the_figures_are_there_where_the_sheet_is_not(
    fovea_command: Fovea, classes: Path, suffix: str
) -> None:
    sheet = "n" * 245 + suffix  # too long only for the hidden file
    done = fovea_command("index", "evaluate", "classes", "--sheet", sheet)
    assert done.exit_code == 1
    assert done.stdout.endswith("the index (flat) finds 100.00% of the true 10 nearest\n")
    assert f"{sheet} can't be written: File name too long" in done.stderr
    programs = fovea_command("index", "evaluate", "classes", "--sheet", sheet, "--json")
    assert programs.exit_code == 1
    assert json.loads(programs.stdout)["queries"] == 36


def test_a_picture_of_which_there_are_very_many_is_no_query(
    fovea_command: Fovea, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MOST_COPIES", 3)
    missing = file_bytes(of_class(0, 20))
    for number in range(3):
        (classes / "red" / f"missing-{number}.png").write_bytes(missing)
    assert measured(fovea_command, "classes")["queries"] == 39
    (classes / "green" / "missing.png").write_bytes(missing)
    found = measured(fovea_command, "classes")
    assert (found["queries"], found["images"]) == (36, 40)


def test_broken_files_are_listed(fovea_command: Fovea, classes: Path) -> None:
    os.mkfifo(classes / "red" / "pipe.jpg")  # opening it would wait for a writer
    (classes / "red" / "broken.jpg").write_bytes(BROKEN)
    (classes / "red" / "empty.png").symlink_to("nowhere.png")
    done = fovea_command("index", "evaluate", "classes")
    assert done.exit_code == 1
    assert done.stdout.startswith("36 queries of 3 classes")
    assert "3 of 39 files can't be used:" in done.stderr
    assert "red/pipe.jpg: isn't a regular file; expected an image file" in done.stderr
    assert "red/broken.jpg: " in done.stderr
    assert "red/empty.png: can't be read: No such file or directory" in done.stderr


def test_what_cannot_be_evaluated(fovea_command: Fovea, classes: Path, tmp_path: Path) -> None:
    one_each = tmp_path / "one-each"
    for label in LABELS:
        (one_each / label).mkdir(parents=True)
        (classes / label / "00.png").rename(one_each / label / "00.png")
    done = fovea_command("index", "evaluate", "one-each")
    assert done.exit_code == 1
    assert "no class in one-each has 2 different pictures" in done.stderr
    assert "evaluate" not in fovea_command("index", "list").stdout

    absent = fovea_command("index", "evaluate", "classes", "--collection", "absent")
    assert absent.exit_code == 1
    assert "absent" in absent.stderr
    assert "evaluate" not in fovea_command("index", "list").stdout

    (tmp_path / "nothing").mkdir()
    nothing = fovea_command("index", "evaluate", "nothing")
    assert nothing.exit_code == 1
    assert "no image files under nothing" in nothing.stderr

    unknown = fovea_command("index", "evaluate", "classes", "--model", "missing")
    assert unknown.exit_code == 1
    assert "missing" in unknown.stderr

    own = ("--collection", "own-vectors")
    assert fovea_command("index", "create", *own, "--dimension", "5").exit_code == 0
    try:
        unsaid = fovea_command("index", "evaluate", "classes", *own)
        assert "name what makes those of the queries with --model" in unsaid.stderr
        other = fovea_command("index", "evaluate", "classes", *own, "--model", "colors")
        assert "has vectors of 5 numbers, and the model makes some of 24" in other.stderr
    finally:
        fovea_command("index", "drop", "--yes", *own)
