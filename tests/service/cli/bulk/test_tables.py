"""fovea index add on CSV and Parquet tables: columns, types, cells that can't be used."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from fovea import Client, attribute
from pyarrow import parquet

from tests.client.pictures import file_bytes, of_class
from tests.service.cli.conftest import Fovea

OWN = {"path", "uri", "sha256", "size_bytes", "modified_ns"}
Add = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 0.png to 5.png in a folder `images`, beside which tables may lie."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        (tmp_path / "images" / f"{number}.png").write_bytes(file_bytes(of_class(number, 80 + number)))
    return tmp_path


def attributes(client: Client, collection: str) -> dict[str, dict[str, object]]:
    """By id, without add's own."""
    return {
        item.id: {name: value for name, value in item.attributes.items() if name not in OWN}
        for item in client.scan(collection)
    }


def test_what_is_declared_is_said(
    fovea_command: Fovea, client: Client, collection: str, folder: Path
) -> None:
    table = folder / "table.csv"
    table.write_text(
        "path,year,weight,code,note\nimages/0.png,2020,1,007,x\nimages/1.png,,2.5,012,\n", encoding="utf-8"
    )
    named = ("--collection", collection)
    wrong = fovea_command("index", "add", table, *named, "--attribute", "yeer=int")
    assert wrong.exit_code == 1
    assert wrong.stderr == (
        f"Error: {table} has nothing for --attribute yeer=int; expected one of code, label, modified_ns, "
        "note, path, sha256, size_bytes, uri, weight, year. `fovea index create` declares what comes later\n"
    )
    done = fovea_command("index", "add", table, *named)
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[0] == (
        f"made collection {collection!r} with attributes: code string, label string, note string, path "
        "string, sha256 string, uri string, weight string, year string; to filter by numbers, drop it "
        "and begin again with --attribute weight=float --attribute year=int"
    )
    assert "made collection" not in fovea_command("index", "add", table, *named).stderr
    client.drop_collection(collection)
    stated = ("--attribute", "year=int", "--attribute", "weight=float")
    done = fovea_command("index", "add", table, *named, *stated)
    assert done.stderr.splitlines()[0].endswith("uri string, weight float, year int")
    client.drop_collection(collection)
    of_folder = fovea_command("index", "add", folder / "images", *named)
    assert "made collection" not in of_folder.stderr  # it declares what all folders have


def test_a_csv_table(fovea_command: Fovea, client: Client, collection: str, folder: Path) -> None:
    table = folder / "table.csv"
    table.write_text(
        "\ufeff Path,LABEL,split,year,note\n"
        f"images/0.png,red,train,2020,\n\n"
        f'{folder}/images/1.png,007,val,2021,"two\nlines"\n'
        "images/../images/2.png,,test,,x\n",
        encoding="utf-8",
    )
    done = fovea_command("index", "add", table, "--collection", collection, "--attribute", "year=int")
    assert done.exit_code == 0, done.output
    assert f"indexed 3 images of {table};" in done.stdout
    assert attributes(client, collection) == {
        "images/0.png": {"label": "red", "split": "train", "year": 2020},
        "images/1.png": {"label": "007", "split": "val", "year": 2021, "note": "two\nlines"},
        "images/2.png": {"split": "test", "note": "x"},
    }
    declared = client.collection(collection).attributes
    assert declared == {
        "path": "string", "uri": "string", "label": "string", "sha256": "string", "split": "string",
        "year": "int", "note": "string",
    }  # fmt: skip
    assert client.count(collection, filter=attribute("year") >= 2021) == 1


def test_ids_and_uris_of_its_own(
    fovea_command: Fovea, client: Client, collection: str, folder: Path, embedded: Callable[[], int]
) -> None:
    table = folder / "table.csv"
    table.write_text("id,path,uri\n17,images/0.png,file:///elsewhere/0.png\n18,images/1.png,\n")
    assert fovea_command("index", "add", table, "--collection", collection).exit_code == 0
    stored = {item.id: item.attributes["uri"] for item in client.scan(collection)}
    assert stored == {"17": "file:///elsewhere/0.png", "18": (folder / "images" / "1.png").as_uri()}
    embedded()
    # Another label alone is written with the vector that is there.
    table.write_text("id,path,uri,label\n17,images/0.png,file:///elsewhere/0.png,a\n18,images/1.png,,b\n")
    done = fovea_command("index", "add", table, "--collection", collection)
    assert "indexed 2 images" in done.stdout
    assert embedded() == 0
    assert [item.attributes["label"] for item in client.scan(collection)] == ["a", "b"]


def test_of_rows_with_one_id_the_last_is_kept(
    fovea_command: Fovea, client: Client, collection: str, folder: Path
) -> None:
    table = folder / "table.csv"
    rows = [f"same,images/{number % 6}.png,{number}\n" for number in range(100)]
    table.write_text("id,path,number\n" + "".join(rows))
    assert fovea_command("index", "add", table, "--collection", collection).exit_code == 0
    (item,) = client.scan(collection)
    assert (item.id, item.attributes["number"]) == ("same", "99")


def test_cells_that_cannot_be_used_are_their_rows_own(
    fovea_command: Fovea, client: Client, collection: str, folder: Path
) -> None:
    client.create_collection(
        collection, attributes={"year": "int", "ratio": "float", "seen": "bool", "label": "string"}
    )
    table = folder / "table.csv"
    table.write_text(
        "path,year,ratio,seen\n"
        "images/0.png,2020,0.5,TRUE\n"
        "images/1.png,2020.5,0.5,0\n"
        "images/2.png,2020,nan,0\n"
        "images/3.png,2020,1,perhaps\n"
        "images/4.png,2020,1\n"
        ",2020,1,1\n"
        "images/absent.png,2020,1,1\n"
        "images/5.png,-7,1,false\n"
    )
    done = fovea_command("index", "add", table, "--collection", collection)
    assert done.exit_code == 1
    assert "6 of 8 files weren't indexed:" in done.stderr
    for line in (
        "images/1.png: its year is '2020.5'; expected an int of 64 bits",
        "images/2.png: its ratio is 'nan'; expected a finite float",
        "images/3.png: its seen is 'perhaps'; expected true or false",
        "table.csv: row 6: it has 3 cells; expected 4, one for each column",
        "table.csv: row 7: its path is ''; expected the path of an image file",
        "images/absent.png: can't be read: No such file or directory",
    ):
        assert line in done.stderr
    assert attributes(client, collection) == {
        "images/0.png": {"year": 2020, "ratio": 0.5, "seen": True},
        "images/5.png": {"year": -7, "ratio": 1.0, "seen": False},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; expected a header"),
        (b"file,label\n", "has no column path; expected one with the images' paths"),
        (b"path,a,a\nx,1,2\n", "has two columns 'a'"),
        (b"path, PATH\n", "has two columns path"),
        (b"path,sha256\n", "has a column sha256; expected another name"),
        (b"path\n", "has no rows"),
        (b"path,\xff\n", "isn't UTF-8"),
        (b'path\n"unfinished\n', "or after it"),
        (
            b"path," + b",".join(b"c%d" % number for number in range(70)) + b"\n1" + b"," * 70,
            "for 74 attributes",
        ),
    ],
)
def test_tables_that_cannot_be_used(
    fovea_command: Fovea, collection: str, folder: Path, content: bytes, words: str
) -> None:
    (folder / "bad.csv").write_bytes(content)
    done = fovea_command("index", "add", folder / "bad.csv", "--collection", collection)
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_parquet_table(fovea_command: Fovea, client: Client, collection: str, folder: Path) -> None:
    table = pa.table(
        {
            "path": [f"images/{number}.png" for number in range(6)],
            "labels": [["a", "b"], [], None, ["c"], ["d"], ["e"]],
            "year": pa.array([2000, None, 2**62, -1, 0, 1], pa.int64()),
            "ratio": pa.array([0.5, float("nan"), 1, 2, 3, None], pa.float32()),
            "sharp": [True, False, None, True, True, True],
            "day": pa.array([datetime.date(2026, 1, 2)] + [None] * 5),
            "thumb": pa.array([b"x"] * 6),
            "kind": pa.array(["u", "v"] * 3).dictionary_encode(),
        }
    )
    file = folder / "table.parquet"
    parquet.write_table(table, file, row_group_size=2)
    done = fovea_command("index", "add", file, "--collection", collection)
    assert done.exit_code == 0, done.output
    found = attributes(client, collection)
    assert found["images/0.png"] == {
        "labels": "a;b", "year": 2000, "ratio": 0.5, "sharp": True, "day": "2026-01-02", "kind": "u",
    }  # fmt: skip
    assert found["images/1.png"] == {"sharp": False, "kind": "v"}
    assert found["images/2.png"] == {"year": 2**62, "ratio": 1.0, "kind": "u"}
    assert client.collection(collection).attributes == {
        "path": "string", "uri": "string", "label": "string", "sha256": "string", "labels": "string",
        "year": "int", "ratio": "float", "sharp": "bool", "day": "string", "kind": "string",
    }  # fmt: skip
    again = fovea_command("index", "add", file, "--collection", collection)
    assert "6 were there already" in again.stdout


def test_undeclared_columns_are_stored_with_their_own_types(
    fovea_command: Fovea, client: Client, collection: str, folder: Path
) -> None:
    client.create_collection(collection, attributes={"sha256": "string", "label": "string"})
    file = folder / "table.parquet"
    columns = {"path": ["images/0.png"], "label": [7], "n": [3], "f": [2.5], "b": [True], "t": ["x"]}
    parquet.write_table(pa.table(columns), file)
    for words in ("indexed 1 image of", "1 were there already"):
        assert words in fovea_command("index", "add", file, "--collection", collection).stdout
    assert attributes(client, collection)["images/0.png"] == {
        "label": "7", "n": 3, "f": 2.5, "b": True, "t": "x",
    }  # fmt: skip


def test_parquet_that_is_none(fovea_command: Fovea, collection: str, folder: Path) -> None:
    file = folder / "table.parquet"
    file.write_bytes(b"PAR1 and no more")
    done = fovea_command("index", "add", file, "--collection", collection)
    assert done.exit_code == 1
    assert "can't be read as Parquet" in done.stderr
    parquet.write_table(pa.table({"path": ["images/0.png"] * 5000}), file)
    content = bytearray(file.read_bytes())
    content[4:60] = os.urandom(56)
    file.write_bytes(content)
    done = fovea_command("index", "add", file, "--collection", collection)
    assert done.exit_code == 1
    assert "can't be read as Parquet" in done.stderr
