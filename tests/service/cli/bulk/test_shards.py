"""fovea index add on WebDataset shards."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fovea import Client

from tests.client.pictures import expected_embedding, file_bytes, of_class
from tests.service.cli.conftest import Fovea

OWN = {"path", "sha256", "size_bytes", "modified_ns"}


def picture(number: int) -> bytes:
    return file_bytes(of_class(number, 70 + number))


def write(shard: Path, members: dict[str, bytes]) -> Path:
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return shard


def attributes(client: Client, collection: str) -> dict[str, dict[str, object]]:
    return {
        item.id: {name: value for name, value in item.attributes.items() if name not in OWN}
        for item in client.scan(collection)
    }


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards in a folder."""
    write(
        tmp_path / "data" / "train" / "0.tar",
        {
            "./a/0.png": picture(0), "./a/0.cls": b"3\n", "__meta__/x.png": picture(9),
            "a/1.jpg": picture(1), "a/1.txt": b"caption", "a/1.json": b'{"label": "no", "year": 2020}',
            "a/2.seg.png": picture(2), "a/.hidden.png": picture(3), "a/3.txt": b"no picture",
        },
    )  # fmt: skip
    document = {"label": ["x", "y"], "w": 1.5, "ok": True, "none": None, "inner": {"a": 1}, "path": "p"}
    write(
        tmp_path / "data" / "train" / "1.tar",
        {"0.PNG": picture(4), "0.json": json.dumps(document).encode(), "1.webp": picture(0)},
    )
    return tmp_path / "data"


def test_samples_and_what_is_known_of_them(
    fovea_command: Fovea, client: Client, collection: str, shards: Path, embedded: Callable[[], int]
) -> None:
    done = fovea_command("index", "add", shards, "--collection", collection)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"indexed 5 images of {shards}, 1 of them with the vector of the same")
    assert f"next: fovea search --id train/0.tar/a/0.png --collection {collection}" in done.stdout
    assert embedded() == 4
    assert attributes(client, collection) == {
        "train/0.tar/a/0.png": {"label": "3"},
        "train/0.tar/a/1.jpg": {"label": "caption", "year": 2020},
        "train/0.tar/a/2.seg.png": {},
        "train/1.tar/0.PNG": {"label": "x;y", "w": 1.5, "ok": True},
        "train/1.tar/1.webp": {},
    }
    (item,) = client.get(collection, ["train/1.tar/0.PNG"], include_vectors=True)
    assert item.vector is not None
    np.testing.assert_allclose(item.vector, expected_embedding(of_class(4, 74)), atol=1e-6)
    assert item.attributes["path"] == str(shards / "train" / "1.tar" / "0.PNG")
    again = fovea_command("index", "add", shards, "--collection", collection)
    assert "indexed 0 images" in again.stdout
    assert "5 were there already" in again.stdout


def test_shards_by_their_names(fovea_command: Fovea, client: Client, collection: str, shards: Path) -> None:
    files = sorted((shards / "train").iterdir())
    done = fovea_command("index", "add", *files, "--collection", collection)
    assert done.stdout.startswith("indexed 5 images of 2 shards")
    assert "0.tar/a/0.png" in attributes(client, collection)


def test_a_folder_with_images_is_no_folder_of_shards(
    fovea_command: Fovea, client: Client, collection: str, shards: Path
) -> None:
    (shards / "beside.png").write_bytes(picture(8))
    assert fovea_command("index", "add", shards, "--collection", collection).exit_code == 0
    assert [item.id for item in client.scan(collection)] == ["beside.png"]


def test_what_is_broken_is_listed_and_the_rest_indexed(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path
) -> None:
    write(
        tmp_path / "odd.tar",
        {
            "0.png": picture(0), "0.jpg": picture(1),
            "1.png": picture(1), "1.json": b"{",
            "2.png": picture(2), "2.txt": b"\xff",
            "3.png": b"no picture",
            "4.png": picture(4), "4.json": b'{"sha256": "x"}',
            "5.png": picture(5), "5.json": json.dumps({"a": "\ud800"}).encode(),
            "6.png": picture(6), "6.txt": b"x" * 70_000,
            "7.png": picture(7),
        },
    )  # fmt: skip
    done = fovea_command("index", "add", tmp_path / "odd.tar", "--collection", collection)
    assert done.exit_code == 1
    for line in (
        "7 of 8 files weren't indexed:",
        "odd.tar/0.png: its sample has 2 images; expected one",
        "odd.tar/1.png: its .json isn't JSON",
        "odd.tar/2.png: its .txt isn't UTF-8",
        "odd.tar/3.png: ",
        "odd.tar/4.png: its .json has sha256; that attribute is written by",
        "odd.tar/5.png: its a is ",
        "odd.tar/6.png: its .txt has 70,000 bytes; expected at most 65,536",
    ):
        assert line in done.stderr
    assert [item.id for item in client.scan(collection)] == ["odd.tar/7.png"]


@pytest.mark.parametrize(("cut", "whole"), [(1024, 6), (700, 6), (540, 5), (100, 5)])
def test_a_cut_shard_gives_what_is_whole(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path, cut: int, whole: int
) -> None:
    shard = write(tmp_path / "cut.tar", {f"{number}.png": picture(number) for number in range(6)})
    content = shard.read_bytes()
    # Each member takes 512 bytes for its header, and 512 for its picture of 77.
    shard.write_bytes(content[: 5 * 1024 + cut])
    done = fovea_command("index", "add", shard, "--collection", collection)
    assert done.exit_code == 1
    assert "cut.tar: is broken or cut short" in done.stderr
    assert len(attributes(client, collection)) == whole


def test_compressed_shards_are_refused(fovea_command: Fovea, collection: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("0.png"))
    done = fovea_command("index", "add", tmp_path / "a.tar", "--collection", collection)
    assert done.exit_code == 1
    assert "is compressed (gzip); expected a plain tar archive" in done.stderr


def test_shards_without_images(fovea_command: Fovea, collection: str, tmp_path: Path) -> None:
    shard = write(tmp_path / "a.tar", {"0.txt": b"x"})
    done = fovea_command("index", "add", shard, "--collection", collection)
    assert done.exit_code == 1
    assert "has no samples with an image; looked for .bmp" in done.stderr
