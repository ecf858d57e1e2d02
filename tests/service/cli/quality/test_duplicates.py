"""fovea index duplicates, over a real server: photographs' copies, and pictures that only look alike."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from fovea import Client, Item
from PIL import Image

from tests.client.pictures import BROKEN
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea
from tests.service.cli.quality.test_perceptual_hash import scene

NAMED = ("--collection", "near-duplicates")


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pictures; of the first three copies, of the second one, and a grey version of the third."""
    folder = tmp_path / "album"
    (folder / "copies").mkdir(parents=True)
    for seed in range(8):
        scene(seed, (320, 240)).save(folder / f"{seed}.png")
    (folder / "copies" / "0-same.png").write_bytes((folder / "0.png").read_bytes())
    scene(0, (320, 240)).save(folder / "copies" / "0-compressed.jpg", quality=40)
    scene(0, (320, 240)).resize((160, 120)).save(folder / "copies" / "0-small.png")
    scene(1, (640, 480)).save(folder / "copies" / "1-large.png")
    # The hash sees no colour; the colors model sees nothing else.
    red, green, blue = scene(2, (320, 240)).convert("L").convert("RGB").split()
    Image.merge("RGB", (red, green.point(lambda _: 0), blue.point(lambda _: 0))).save(
        folder / "copies" / "2-red.png"
    )
    monkeypatch.chdir(tmp_path)
    return folder


def groups_of(fovea_command: Fovea, *arguments: str | Path, status: int = 0) -> list[list[dict[str, Any]]]:
    done = fovea_command("index", "duplicates", *arguments, "--json")
    assert done.exit_code == status, done.output
    return [json.loads(line)["members"] for line in done.stdout.splitlines()]


def ids(groups: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[member["id"] for member in group] for group in groups]


EXPECTED = [
    ["0.png", "copies/0-same.png", "copies/0-compressed.jpg", "copies/0-small.png"],
    ["copies/1-large.png", "1.png"],
]


def test_in_a_folder_and_in_a_collection(fovea_command: Fovea, album: Path) -> None:
    in_folder = groups_of(fovea_command, "album")
    assert ids(in_folder) == EXPECTED
    first, same, compressed, small = in_folder[0]
    assert (first["bits"], first["width"], first["height"]) == (0, 320, 240)
    assert first["path"] == str(Path("album") / "0.png")
    assert (same["bits"], same["hash"]) == (0, first["hash"])
    assert same["cosine"] == pytest.approx(1, abs=1e-5)
    assert 0 <= compressed["bits"] <= 10
    assert small["width"] == 160

    assert fovea_command("index", "add", "album", *NAMED).exit_code == 0
    try:
        stored = groups_of(fovea_command, *NAMED)
        assert ids(stored) == EXPECTED
        assert stored[0][0]["path"] == str(album / "0.png")
        # The pictures are somewhere else now.
        album.rename(album.with_name("moved"))
        gone = fovea_command("index", "duplicates", *NAMED)
        assert gone.exit_code == 1
        assert gone.stdout.startswith("no near-duplicates in 0 of 13 images of collection 'near-dup")
        assert "13 of 13 files can't be compared:" in gone.stderr
        assert "0.png: none of its path and uri is a file on this machine" in gone.stderr
        assert ids(groups_of(fovea_command, "moved", *NAMED)) == EXPECTED
        # A folder that has none of them; and one that has some, as the others are where they were.
        moved = album.with_name("moved")
        wrong = fovea_command("index", "duplicates", moved / "copies", *NAMED)
        assert wrong.exit_code == 1
        assert wrong.stderr.startswith(
            f"Error: {moved / 'copies'} has no picture of collection 'near-duplicates'; expected files named "
            f"as its ids, for instance {moved / 'copies' / '0.png'}. "
        )
        album.mkdir()
        (album / "1.png").write_bytes((moved / "1.png").read_bytes())
        (moved / "1.png").unlink()
        some = fovea_command("index", "duplicates", "moved", *NAMED)
        assert some.exit_code == 0, some.output
        assert "1 of 13 images of collection 'near-duplicates' aren't in moved: they are read" in some.stderr
    finally:
        fovea_command("index", "drop", "--yes", *NAMED)


def test_the_hash_comes_first_and_the_cosine_confirms(fovea_command: Fovea, album: Path) -> None:
    loose = ids(groups_of(fovea_command, "album", "--threshold", "0"))
    assert ["2.png", "copies/2-red.png"] in loose  # their hashes are near, their colours aren't
    assert len(loose) == 3
    same_hash = groups_of(fovea_command, "album", "--max-bits", "0", "--threshold", "0")
    assert all(member["bits"] == 0 for group in same_hash for member in group)
    assert ids(same_hash)[0][:2] == ["0.png", "copies/0-same.png"]
    # No cosine reaches beyond 1; rounded ones of equal pictures do reach 0.9999.
    assert ids(groups_of(fovea_command, "album", "--threshold", "0.99999"))[0][:2] == [
        "0.png",
        "copies/0-same.png",
    ]


def test_what_a_person_reads(fovea_command: Fovea, album: Path) -> None:
    done = fovea_command("index", "duplicates", "album", "--page", "report.html")
    assert done.exit_code == 0, done.output
    about, first, second, *rest = done.stdout.splitlines()
    assert re.fullmatch(
        r"2 groups with 4 more than one of each, in 13 images of album; pairs differ in at most 10 bits, "
        r"with a cosine of at least 0\.\d{4} \(\d+\.\d% of 39 copies at JPEG quality 50, at half the size "
        r"or 1\.1 times as bright reach it, and \d+\.\d\d% of pairs of different pictures\); pairs make "
        r"chains, so some of a group may differ more",
        about,
    )
    assert first == "0.png  320×240"
    assert second == "  copies/0-same.png  320×240, 0 bits, cosine 1.0000"
    assert rest[-1] == "wrote report.html"
    page = Path("report.html").read_text("utf-8")
    taken_in, _, left_out = page.partition("<section><h2>Not taken in")
    assert taken_in.count("<section>") == 2
    assert taken_in.count('src="data:image/jpeg;base64,') == 6
    assert left_out.count('src="data:image/jpeg;base64,') == 2  # 2.png and its copy in red
    assert "http" not in page
    assert "<nav>" not in page


def test_pairs_that_only_the_cosine_keeps_out_are_counted(fovea_command: Fovea, album: Path) -> None:
    (album / "copies" / "2-red.png").unlink()
    shade = scene(3, (320, 240)).convert("L")
    darker = [shade.point([value * tenths // 10 for value in range(256)]) for tenths in (7, 4)]
    for number in range(6):  # hashes see no colour, and the model little else
        planes = [shade, shade, shade]
        planes[number % 3] = darker[number // 3]
        Image.merge("RGB", planes).save(album / f"grey-{number}.png")
    (album / "3.png").unlink()
    given = ("index", "duplicates", "album", "--threshold", "0.9999")
    done = fovea_command(*given, "--page", "report.html")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    (number,) = (number for number, line in enumerate(lines) if "nearly equal hashes" in line)
    said = re.fullmatch(
        r"(\d+) further pairs have nearly equal hashes \(at most 2 bits differ\) but a lower cosine, up to "
        r"(0\.\d{4}); a lower --threshold takes them in; the highest of them:",
        lines[number],
    )
    assert said is not None, lines[number]
    assert int(said[1]) >= 15
    pairs = lines[number + 1 : -1]
    assert len(pairs) == 2 * 5
    cosines = [float(line.rpartition(" ")[2]) for line in pairs[1::2]]
    assert cosines == sorted(cosines, reverse=True)
    assert f"{cosines[0]:.4f}" == said[2]
    page = Path("report.html").read_text("utf-8")
    assert "nearly equal hashes (at most 2 bits differ)" in page
    assert page.partition("Not taken in")[2].count('src="data:image/jpeg;') == 10
    programs = fovea_command(*given, "--json")
    assert "nearly equal hashes" in programs.stderr
    assert all("members" in json.loads(line) for line in programs.stdout.splitlines())
    loose = fovea_command("index", "duplicates", "album", "--threshold", "0")
    assert "nearly equal hashes" not in loose.stdout


def test_pages_are_bounded(fovea_command: Fovea, album: Path) -> None:
    for number in range(40):
        (album / f"same-{number:02d}.png").write_bytes((album / "3.png").read_bytes())
    done = fovea_command("index", "duplicates", "album", "--page", "report.html", "--per-page", "2")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("wrote report.html\nwrote report-2.html\n")
    first, second = (Path(name).read_text("utf-8") for name in ("report.html", "report-2.html"))
    assert first.count("<section>") == 2
    assert "Group 1: 41 pictures" in first
    assert "… and 17 more" in first
    assert first.count("data:image/jpeg") == 24 + 4
    assert '<b>1</b> <a href="report-2.html">2</a>' in first
    assert "Group 3: 2 pictures" in second
    assert '<a href="report.html">1</a> <b>2</b>' in second


def test_the_report_is_there_where_the_page_is_not(fovea_command: Fovea, album: Path) -> None:
    page = "n" * 245 + ".html"  # too long only for the hidden file
    done = fovea_command("index", "duplicates", "album", "--page", page)
    assert done.exit_code == 1
    assert done.stdout.startswith("2 groups with 4 more than one of each, in 13 images of album; ")
    assert "0.png  320×240\n" in done.stdout
    assert "wrote" not in done.stdout
    assert f"{page} can't be written: File name too long" in done.stderr
    programs = fovea_command("index", "duplicates", "album", "--page", page, "--json")
    assert programs.exit_code == 1
    assert [len(json.loads(line)["members"]) for line in programs.stdout.splitlines()] == [4, 2]


def test_names_in_a_page_are_text(fovea_command: Fovea, album: Path) -> None:
    (album / "<script>alert(1)<script>.png").write_bytes(b"")
    (album / "<b>&.png").write_bytes((album / "0.png").read_bytes())
    done = fovea_command("index", "duplicates", "album", "--page", "report.html")
    assert done.exit_code == 1
    assert "script" in done.stderr
    page = Path("report.html").read_text("utf-8")
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>&.png" not in page
    assert "<b>&amp;.png" not in page


def test_one_group_is_no_groups(fovea_command: Fovea, album: Path) -> None:
    (album / "copies" / "1-large.png").unlink()
    done = fovea_command("index", "duplicates", "album")
    assert done.stdout.startswith("1 group with 3 more than one of each, in 12 images of album")


def test_broken_files_are_listed(fovea_command: Fovea, album: Path) -> None:
    (album / "broken.jpg").write_bytes(BROKEN)
    os.mkfifo(album / "pipe.jpg")  # opening it would wait for a writer
    done = fovea_command("index", "duplicates", "album")
    assert done.exit_code == 1
    assert done.stdout.startswith("2 groups with 4 more than one of each, in 13 of 15 images of album; ")
    assert "2 of 15 files can't be compared:" in done.stderr
    assert "pipe.jpg: isn't a regular file; expected an image file" in done.stderr
    assert "broken.jpg: " in done.stderr


def test_vectors_of_the_callers_own_need_a_threshold(
    fovea_command: Fovea, album: Path, server: ServerProcess
) -> None:
    with Client(server.address) as client:
        client.create_collection("own", dimension=2)
        uri = (album / "0.png").as_uri()
        other = (album / "copies" / "0-small.png").as_uri()
        client.upsert("own", [Item("a", vector=[3, 0], attributes={"uri": uri})])
        client.upsert("own", [Item("b", vector=[1, 0.1], attributes={"uri": other})])
        try:
            refused = fovea_command("index", "duplicates", "--collection", "own")
            assert refused.exit_code == 1
            assert "give it with --threshold" in refused.stderr
            given = ("--collection", "own", "--threshold")
            assert ids(groups_of(fovea_command, *given, "0.9")) == [["a", "b"]]
            assert ids(groups_of(fovea_command, *given, "0.9999")) == []
        finally:
            client.drop_collection("own")


def test_what_is_refused(fovea_command: Fovea, album: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    nothing = fovea_command("index", "duplicates", "nothing")
    assert nothing.exit_code == 1
    assert "no image files under nothing" in nothing.stderr
    page = fovea_command("index", "duplicates", "album", "--page", "report.txt")
    assert page.exit_code == 2
    assert "report.txt is no .html file" in page.stderr
    model = fovea_command("index", "duplicates", *NAMED, "--model", "colors")
    assert model.exit_code == 2
    assert "--model and --version are for a folder" in model.stderr
    absent = fovea_command("index", "duplicates", "--collection", "absent")
    assert absent.exit_code == 1
    assert "absent" in absent.stderr
