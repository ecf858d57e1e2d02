"""fovea index export and import: what goes out comes in, on another server and engine too."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fovea import AttributeValue, Client, Item, NotFound
from pyarrow import parquet

from tests.client.pictures import file_bytes, of_class
from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea
from tests.service.retrieval.pgvector import server as postgres

DIMENSION = 24


def contents(client: Client, collection: str) -> list[tuple[str, dict[str, AttributeValue], list[float]]]:
    return [
        (item.id, dict(item.attributes), item.vector.tolist())
        for item in client.scan(collection, include_vectors=True)
        if item.vector is not None
    ]


def fill(client: Client, collection: str, count: int) -> str:
    """Make the collection, of so many items of own vectors."""
    client.create_collection(
        collection,
        dimension=DIMENSION,
        metric="inner_product",
        fingerprint="mine:fp32",
        attributes={"label": "string", "year": "int", "ratio": "float", "sharp": "bool"},
        storage="float16",
    )
    drawn = np.random.default_rng(5).normal(size=(count, DIMENSION)).astype(np.float32)
    items = [
        Item(
            f"ü{number}",
            vector=vector,
            attributes={"year": number - 2**62, "ratio": number / 3, "sharp": number % 2 == 0, "free": "ß"}
            if number % 3
            else {"label": "x" * (number % 50)},
        )
        for number, vector in enumerate(drawn)
    ]
    results = client.upsert_stream(collection, items, fingerprint="mine:fp32")
    assert not [result for result in results if result.error]
    return collection


@pytest.fixture
def filled(client: Client, collection: str) -> str:
    """A collection of 2,300 items, so that there are several pages."""
    return fill(client, collection, 2300)


def test_out_and_in_again(fovea_command: Fovea, client: Client, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    done = fovea_command("index", "export", file, "--collection", filled)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote 2,300 items of collection {filled!r} to {file}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file.parquet"]
    other = filled + "-2"
    for _ in range(2):  # the second time over what is there
        done = fovea_command("index", "import", file, "--collection", other)
        assert done.exit_code == 0, done.output
        assert done.stdout == f"imported 2,300 items of {file}; collection {other!r} has 2,300\n"
        assert contents(client, other) == contents(client, filled)
    made, origin = client.collection(other), client.collection(filled)
    for field in ("dimension", "metric", "fingerprint", "attributes", "storage", "count"):
        assert getattr(made, field) == getattr(origin, field)

    client.drop_collection(filled)
    assert fovea_command("index", "import", file).exit_code == 0  # by the file's own name
    assert contents(client, filled) == contents(client, other)


def test_an_empty_collection(fovea_command: Fovea, client: Client, collection: str, tmp_path: Path) -> None:
    client.create_collection(collection, dimension=3, metric="l2")
    file = tmp_path / "empty.parquet"
    assert "wrote 0 items" in fovea_command("index", "export", file, "--collection", collection).stdout
    client.drop_collection(collection)
    assert "imported 0 items" in fovea_command("index", "import", file).stdout
    assert (client.collection(collection).dimension, client.collection(collection).metric) == (3, "l2")


@pytest.fixture
def pgvector_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with the same model whose collections are in PostgreSQL."""
    conninfo = postgres.shared().get_uri()
    write_colors(tmp_path / "models")
    options = ("--index-engine", "pgvector", "--index-schema", postgres.schema_of(tmp_path))
    environment = {"FOVEA_INDEX_URL": conninfo}
    with ServerProcess(tmp_path / "models", tmp_path / "index", *options, environment=environment) as process:
        yield process


def test_from_engine_to_engine_and_back(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path, pgvector_server: ServerProcess
) -> None:
    folder = tmp_path / "album" / "red"
    folder.mkdir(parents=True)
    for number in range(50):
        (folder / f"{number:02}.png").write_bytes(file_bytes(of_class(number, 60 + number)))
    named = ("--collection", collection)
    assert fovea_command("index", "add", folder.parent, *named).exit_code == 0
    assert fovea_command("index", "export", tmp_path / "1.parquet", *named).exit_code == 0
    there = {"FOVEA_ADDRESS": pgvector_server.address}
    assert fovea_command("index", "import", tmp_path / "1.parquet", **there).exit_code == 0
    photo = folder / "07.png"
    searches = [fovea_command("search", photo, *named, "--json", **where).stdout for where in ({}, there)]
    found = [[json.loads(line) for line in text.splitlines()] for text in searches]
    assert [each["id"] for each in found[0]] == [each["id"] for each in found[1]]
    assert found[0][0]["id"] == "red/07.png"
    # The moved collection is the model's: add knows what is there.
    again = fovea_command("index", "add", folder.parent, *named, **there)
    assert "50 were there already" in again.stdout, again.output
    shutil.copy(folder / "07.png", folder / "copy.png")
    again = fovea_command("index", "add", folder.parent, *named, **there)
    assert "indexed 1 image of" in again.stdout
    assert ", 1 of them with the vector of the same content; 50 were there already" in again.stdout
    fovea_command("index", "delete", "red/copy.png", *named, **there)
    assert fovea_command("index", "export", tmp_path / "2.parquet", *named, **there).exit_code == 0
    with Client(pgvector_server.address) as other:
        assert contents(other, collection) == contents(client, collection)
    back = ("--collection", collection + "-2")
    assert fovea_command("index", "import", tmp_path / "2.parquet", *back).exit_code == 0
    assert contents(client, collection + "-2") == contents(client, collection)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"dimension": 25}, "has dimension 25, and the file has 24"),
        ({"metric": "l2"}, "has metric l2, and the file has inner_product"),
        ({"fingerprint": "theirs"}, "has fingerprint theirs, and the file has mine:fp32"),
        ({"attributes": {"year": "float"}}, "has attributes year=float, and the file has label=string, "),
    ],
)
def test_another_kind_of_collection_is_refused(
    fovea_command: Fovea, client: Client, filled: str, tmp_path: Path, made: dict[str, Any], words: str
) -> None:
    file = tmp_path / "file.parquet"
    fovea_command("index", "export", file, "--collection", filled)
    origin = client.collection(filled)
    same: dict[str, Any] = {
        name: getattr(origin, name) for name in ("dimension", "metric", "fingerprint", "attributes")
    }
    client.create_collection(filled + "-2", **same | made)
    done = fovea_command("index", "import", file, "--collection", filled + "-2")
    assert done.exit_code == 1
    assert words in done.stderr
    assert client.count(filled + "-2") == 0


def test_files_that_cannot_be_used(fovea_command: Fovea, client: Client, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    fovea_command("index", "export", file, "--collection", filled)
    whole = file.read_bytes()
    other = ("--collection", filled + "-2")
    file.write_bytes(whole[:-100])
    done = fovea_command("index", "import", file, *other)
    assert done.exit_code == 1
    assert f"{file} can't be read" in done.stderr
    parquet.write_table(pa.table({"path": ["x"]}), file)
    done = fovea_command("index", "import", file, *other)
    assert "is Parquet of another program" in done.stderr
    with pytest.raises(NotFound):
        client.collection(filled + "-2")
    file.write_bytes(whole)
    table = parquet.read_table(file)
    place = table.schema.get_field_index("attributes")
    texts = table.column(place).to_pylist()
    texts[7] = '{"a":null}'
    table = table.set_column(
        place, pa.field("attributes", pa.string(), nullable=False), pa.array(texts)
    ).replace_schema_metadata(table.schema.metadata)
    parquet.write_table(table, file)
    done = fovea_command("index", "import", file, *other)
    assert done.exit_code == 1
    assert "has attribute 'a' None; expected a text" in done.stderr


def test_items_that_the_server_refuses_are_listed(
    fovea_command: Fovea, client: Client, filled: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.parquet"
    fovea_command("index", "export", file, "--collection", filled)
    table = parquet.read_table(file)
    ids = table.column("id").to_pylist()
    ids[5] = "x" * 600
    parquet.write_table(
        table.set_column(
            0, pa.field("id", pa.string(), nullable=False), pa.array(ids)
        ).replace_schema_metadata(table.schema.metadata),
        file,
    )
    done = fovea_command("index", "import", file, "--collection", filled + "-2")
    assert done.exit_code == 1
    assert "1 of 2,300 items weren't imported:" in done.stderr
    assert "expected 1 to 512 bytes of UTF-8" in done.stderr
    assert client.count(filled + "-2") == 2299


def test_a_file_that_cannot_be_written(fovea_command: Fovea, filled: str, tmp_path: Path) -> None:
    done = fovea_command("index", "export", tmp_path / "none" / "file.parquet", "--collection", filled)
    assert done.exit_code == 2
    assert "file.parquet can't be written: there is no folder" in " ".join(done.stderr.split())
    done = fovea_command("index", "export", tmp_path / "file.parquet", "--collection", "nobody's")
    assert done.exit_code == 1
    assert "no collection" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_not_written_over(
    fovea_command: Fovea, filled: str, tmp_path: Path
) -> None:
    table = tmp_path / "copy.csv"
    table.write_text("path,label\n")
    done = fovea_command("index", "export", table, "--collection", filled)
    assert done.exit_code == 2
    assert "copy.csv is no .parquet file" in done.stderr
    assert table.read_text() == "path,label\n"


def test_kill_an_import_and_start_again(
    server: ServerProcess, fovea_command: Fovea, client: Client, collection: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.parquet"
    # Many, so that the import still has far to go when this test sees its first items, however late.
    whole = 11_500
    filled = fill(client, collection, whole)
    fovea_command("index", "export", file, "--collection", filled)
    other = filled + "-2"
    command = [
        sys.executable, "-W", "error", "-m", "service", "index", "import", str(file), "--collection", other,
        "--address", server.address,
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as process:
        deadline = time.monotonic() + 60
        stored = 0
        try:
            while stored < 200 and process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(NotFound):
                    stored = client.count(other)
            # Held, it gets no further while this test looks where it stands.
            process.send_signal(signal.SIGSTOP)
            stopped_at = client.count(other)
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 200 <= stopped_at < whole
    assert 200 <= client.count(other) < whole
    assert subprocess.run(command, capture_output=True, env=os.environ, timeout=120).returncode == 0
    assert contents(client, other) == contents(client, filled)
