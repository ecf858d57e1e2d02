"""The small commands of fovea index, and the options of fovea search, as a person reads them."""

import json
from collections.abc import Iterator
from pathlib import Path

import fovea
import pytest
from fovea import Client, Item

from tests.client.pictures import file_bytes, of_class
from tests.packages import LABELS
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """For what no command does."""
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def collection(fovea_command: Fovea, client: Client, pictures: Path, image_root: Path) -> Iterator[str]:
    """The default one: 30 pictures that lie where the server may open them."""
    made = fovea_command(
        "index", "create", "--attribute", "label=string", "--attribute", "number=int", "--attribute",
        "uri=string", "--storage", "float16",
    )  # fmt: skip
    assert made.stdout == "made collection 'default': dimension 24, cosine, float16\n", made.output
    items = []
    for number in range(30):
        path = image_root / f"cli-{number}.png"
        path.write_bytes(file_bytes(of_class(number, 60 + 6 * number)))
        attributes: dict[str, fovea.AttributeValue] = {
            "label": LABELS[number % 3], "number": number, "uri": path.as_uri(),
        }  # fmt: skip
        items.append(Item(f"{number:02}", image=path, attributes=attributes))
    assert not [result for result in client.upsert("default", items) if result.error]
    yield "default"
    fovea_command("index", "drop", "--yes")


def found(fovea_command: Fovea, *options: str) -> list[str]:
    done = fovea_command("search", "red.png", "--json", *options)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


def test_search_options(fovea_command: Fovea, collection: str) -> None:
    everything = found(fovea_command, "--top-k", "30")
    red = [name for name in everything if int(name) % 3 == 0]
    few = [name for name in red if int(name) >= 20]
    assert found(fovea_command, "--filter", 'label = "red" and number >= 20') == few
    assert found(fovea_command, "--offset", "3", "--top-k", "4") == everything[3:7]
    grouped = found(fovea_command, "--group-by", "label")
    assert len(grouped) == 3
    assert grouped[0] == everything[0]
    assert len(found(fovea_command, "--group-by", "label:2")) == 6
    assert found(fovea_command, "--recall", "1") == everything[:10]
    assert set(found(fovea_command, "--min-score", "0.9", "--top-k", "30")) < set(everything)
    expanded = found(fovea_command, "--expand", "10:1", "--top-k", "30")
    assert sorted(expanded) == sorted(everything)
    assert expanded != everything


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--filter", "label = red"), "'red' at character 9; expected a value: text in quotes"),
        (("--group-by", "label:0"), "'label:0'; expected ATTRIBUTE or ATTRIBUTE:N"),
        (("--expand", "none"), "'none'; expected N or N:ALPHA"),
        (("--expand", "5:-1"), "'5:-1'; expected N or N:ALPHA"),
        (("--recall", "0"), "0"),
        (("--offset", "-1"), "-1"),
    ],
)
def test_wrong_options_are_told(
    fovea_command: Fovea, pictures: Path, options: tuple[str, str], words: str
) -> None:
    done = fovea_command("search", "red.png", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_why_nothing_is_found(fovea_command: Fovea, collection: str) -> None:
    condition, score, offset = ("--filter", "number > 99"), ("--min-score", "1.5"), ("--offset", "30")
    for options, reason in (
        (condition, "passes the filter"),
        (score, "has a score of at least 1.5"),
        (offset, "comes after the first 30"),
        ((*condition, *score), "passes the filter and has a score of at least 1.5"),
    ):
        done = fovea_command("search", "red.png", *options)
        assert done.exit_code == 0
        assert done.stdout == f"nothing in collection 'default' {reason}\n"


def test_the_table_of_what_is_found(fovea_command: Fovea, collection: str, client: Client) -> None:
    rows = fovea_command("search", "red.png", "--top-k", "30").stdout.splitlines()
    assert rows[0].split() == ["SCORE", "LABEL", "ID"]  # no path: the id says which image it is
    assert {tuple(row.split()[1:]) for row in rows if row.endswith("  00")} == {("red", "00")}
    attributes: dict[str, fovea.AttributeValue] = {"label": "red", "path": "/photos/a.png"}
    client.upsert("default", [Item("00", image=of_class(0), attributes=attributes)])
    rows = fovea_command("search", "red.png", "--top-k", "30").stdout.splitlines()
    assert rows[0].split() == ["SCORE", "LABEL", "ID", "IMAGE"]
    assert [row.split()[1:] for row in rows if "/photos" in row] == [["red", "00", "/photos/a.png"]]


def test_what_the_server_refuses_is_one_line(fovea_command: Fovea, collection: str) -> None:
    done = fovea_command("search", "red.png", "--filter", "size > 3")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: the filter asks for attribute 'size'; expected one that the collection declares: label, "
        "number, uri\n"
    )


def test_count_and_delete(fovea_command: Fovea, collection: str) -> None:
    assert fovea_command("index", "count").stdout == "30\n"
    blue = ("--filter", "label = 'blue'")
    assert fovea_command("index", "count", *blue).stdout == "10\n"
    kept = fovea_command("index", "delete", *blue, given="n\n")
    assert kept.exit_code == 1
    assert "delete 10 of collection 'default'? [y/N]" in kept.stdout
    assert fovea_command("index", "count").stdout == "30\n"
    assert fovea_command("index", "delete", *blue, "--yes").stdout == "deleted 10 of collection 'default'\n"
    silent = fovea_command("index", "delete", "--filter", "label = 'red'", given="")
    assert silent.exit_code == 1
    assert silent.stderr == "Error: nobody answered; --yes deletes them without asking\n"
    some = fovea_command("index", "delete", "00", "absent", "01", "absent", "00")
    assert some.exit_code == 1
    assert some.stdout == "deleted 2 of collection 'default'\n"
    assert some.stderr == "absent: collection 'default' has no such id\n"
    (first, second) = found(fovea_command, "--top-k", "2")
    every = fovea_command("index", "delete", first, second)
    assert every.exit_code == 0
    assert (every.stdout, every.stderr) == ("deleted 2 of collection 'default'\n", "")
    assert fovea_command("index", "count").stdout == "16\n"
    for arguments in ((), ("00", *blue)):
        done = fovea_command("index", "delete", *arguments)
        assert done.exit_code == 2
        assert "give either ids or --filter" in done.stderr


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--attribute", "year"), 2, "'year'; expected NAME=TYPE with a type of string, int, float, bool"),
        (("--attribute", "year=date"), 2, "'year=date'; expected NAME=TYPE"),
        (("--model", "colors", "--dimension", "3"), 2, "give either --model or --dimension"),
        (("--model", "nobody's"), 1, "no model"),
    ],
)
def test_what_cannot_be_made(fovea_command: Fovea, options: tuple[str, ...], status: int, words: str) -> None:
    done = fovea_command("index", "create", "--collection", "never", *options)
    assert done.exit_code == status
    assert words in done.stderr


def test_a_collection_of_own_vectors(fovea_command: Fovea) -> None:
    named = ("--collection", "own-vectors")
    made = fovea_command("index", "create", *named, "--dimension", "3", "--metric", "l2")
    assert made.stdout == "made collection 'own-vectors': dimension 3, l2, float32\n"
    again = fovea_command("index", "create", *named)
    assert again.exit_code == 1
    assert "'own-vectors' exists already" in again.stderr
    fovea_command("index", "drop", "--yes", *named)


def test_snapshot_and_restore(fovea_command: Fovea, collection: str) -> None:
    assert fovea_command("index", "flush").stdout == "collection 'default' is up to date\n"
    written = fovea_command("index", "snapshot", "--name", "cli-1")
    assert written.stdout.startswith("wrote snapshot 'cli-1', ")
    header, *rows = fovea_command("index", "snapshots").stdout.splitlines()
    assert header.split() == ["SNAPSHOT", "BYTES", "CREATED"]
    (row,) = [row.split() for row in rows if row.startswith("cli-1 ")]
    listed = fovea_command("index", "snapshots", "--json").stdout.splitlines()
    (entry,) = [each for each in map(json.loads, listed) if each["name"] == "cli-1"]
    assert entry["size_bytes"] == int(row[1])
    assert entry["created"].startswith(row[2])
    named = ("--collection", "cli-copy")
    made = fovea_command("index", "restore", "cli-1", *named)
    assert made.stdout == "made collection 'cli-copy' with 30 images of snapshot 'cli-1'\n"
    assert fovea_command("index", "count", *named).stdout == "30\n"
    fovea_command("index", "drop", "--yes", *named)
    taken = fovea_command("index", "restore", "cli-1")
    assert taken.exit_code == 1
    assert "'default' exists already" in taken.stderr
    assert taken.stderr.endswith("; give another name with --collection\n")
    unknown = fovea_command("index", "restore", "cli-2")
    assert "there are: " in unknown.stderr
    assert "cli-1" in unknown.stderr


def test_reembed(fovea_command: Fovea, collection: str, client: Client) -> None:
    done = fovea_command("index", "reembed", "--model", "broken")
    assert done.exit_code == 0, done.output
    assert done.stdout == "collection 'default' has 30 images of broken version 1\n"
    assert "30/30" in done.stderr
    client.upsert("default", [Item("bare", image=of_class(0))])
    refused = fovea_command("index", "reembed", "--model", "colors")
    assert refused.exit_code == 1
    assert "item 'bare': it has no attribute 'uri'; expected where its image is" in refused.stderr
    skipped = fovea_command("index", "reembed", "--model", "colors", "--skip-broken")
    assert skipped.exit_code == 1
    assert skipped.stdout == "collection 'default' has 30 images of colors version 1; left out: 1\n"
    assert "bare: it has no attribute 'uri'" in skipped.stderr


def test_help_tells_how_to_write_a_filter(fovea_command: Fovea) -> None:
    for command in (("search",), ("index", "count"), ("index", "delete")):
        text = " ".join(fovea_command(*command, "--help").stdout.split())
        assert 'label = "cat" and year >= 2020' in text
        assert "Compare with = != < <= > >= or in (…)" in text
