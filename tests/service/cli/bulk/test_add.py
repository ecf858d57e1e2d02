"""fovea index add on folders: going on, equal files, files that changed or are broken."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fovea import Client, Item, attribute

from service.cli.bulk import broken as broken_module
from service.cli.bulk.entry import MAX_IMAGE_BYTES
from service.cli.bulk.stored import Stored
from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class
from tests.packages import LABELS
from tests.service.cli.conftest import Fovea

Embedded = Callable[[], int]
PICTURES = 40


def picture(number: int) -> bytes:
    """Another one for each number below 190."""
    return file_bytes(of_class(number, 60 + number))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """40 pictures in class folders."""
    folder = tmp_path / "album"
    for number in range(PICTURES):
        file = folder / LABELS[number % 3] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return folder


def vectors(client: Client, collection: str) -> dict[str, np.ndarray]:
    found = {}
    for item in client.scan(collection, include_vectors=True):
        assert item.vector is not None
        found[item.id] = item.vector
    return found


def add(fovea_command: Fovea, collection: str, *arguments: str | Path, status: int = 0) -> str:
    done = fovea_command("index", "add", *arguments, "--collection", collection)
    assert done.exit_code == status, done.output
    return done.stdout.splitlines()[0]


def test_a_collection_that_filters_and_re_embedding_can_use(
    fovea_command: Fovea, client: Client, collection: str, album: Path
) -> None:
    add(fovea_command, collection, album)
    assert client.collection(collection).attributes == {
        "label": "string", "path": "string", "sha256": "string", "uri": "string",
    }  # fmt: skip
    assert client.count(collection, filter=attribute("label") == "green") == 13
    (item,) = client.get(collection, ["green/01.png"])
    assert item.attributes["uri"] == (album / "green" / "01.png").as_uri()
    for name, vector in vectors(client, collection).items():
        number = int(Path(name).stem)
        np.testing.assert_allclose(vector, expected_embedding(of_class(number, 60 + number)), atol=1e-6)


def test_again_nothing_is_embedded(
    fovea_command: Fovea, client: Client, collection: str, album: Path, embedded: Embedded
) -> None:
    first = add(fovea_command, collection, album)
    assert first == f"indexed 40 images of {album}; collection '{collection}' has 40 images"
    assert embedded() == PICTURES
    stored = list(client.scan(collection))
    for options in ((), ("--checksum",)):
        again = add(fovea_command, collection, album, *options)
        assert again == (
            f"indexed 0 images of {album}; 40 were there already; collection '{collection}' has 40 images"
        )
    assert embedded() == 0
    assert [(item.id, item.attributes) for item in client.scan(collection)] == [
        (item.id, item.attributes) for item in stored
    ]


def test_only_what_changed_is_embedded(
    fovea_command: Fovea, client: Client, collection: str, album: Path, embedded: Embedded
) -> None:
    add(fovea_command, collection, album)
    embedded()
    (album / "red" / "00.png").write_bytes(picture(100))
    (album / "new.png").write_bytes(picture(101))
    os.utime(album / "green" / "01.png", ns=(1, 1))  # touched, and the same
    text = add(fovea_command, collection, album)
    assert text.startswith(
        f"indexed 3 images of {album}, 1 of them with the vector of the same content; 38 were there already;"
    )
    assert embedded() == 2
    found = vectors(client, collection)
    np.testing.assert_allclose(found["red/00.png"], expected_embedding(of_class(100, 160)), atol=1e-6)
    (touched,) = client.get(collection, ["green/01.png"])
    assert touched.attributes["modified_ns"] == 1


def test_a_change_that_size_and_time_hide_is_seen_by_checksum(
    fovea_command: Fovea, collection: str, tmp_path: Path, embedded: Embedded
) -> None:
    file = tmp_path / "one" / "a.bmp"
    file.parent.mkdir()
    file.write_bytes(file_bytes(of_class(0), "BMP"))
    add(fovea_command, collection, file.parent)
    before = file.stat()
    file.write_bytes(file_bytes(of_class(1), "BMP"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    embedded()
    add(fovea_command, collection, file.parent)
    assert embedded() == 0
    add(fovea_command, collection, file.parent, "--checksum")
    assert embedded() == 1


def test_another_folder_does_not_take_the_place_of_the_first(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path
) -> None:
    for number, camera in enumerate(("one", "two")):
        (tmp_path / camera).mkdir()
        (tmp_path / camera / "IMG_0001.png").write_bytes(picture(number))
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "IMG_0001.png").write_bytes(picture(0))
    add(fovea_command, collection, tmp_path / "one")
    done = fovea_command("index", "add", tmp_path / "two", "--collection", collection)
    assert done.exit_code == 1
    assert f"another image, {tmp_path / 'one' / 'IMG_0001.png'}; give" in done.stderr
    add(fovea_command, collection, tmp_path / "two", "--prefix", "two/")
    found = vectors(client, collection)
    for number, name in enumerate(("IMG_0001.png", "two/IMG_0001.png")):
        np.testing.assert_allclose(found[name], expected_embedding(of_class(number, 60 + number)), atol=1e-6)
    add(fovea_command, collection, tmp_path / "moved")  # the same image at another place
    (item,) = client.get(collection, ["IMG_0001.png"])
    assert item.attributes["path"] == str(tmp_path / "moved" / "IMG_0001.png")
    add(fovea_command, collection, tmp_path / "two" / ".." / "two", "--replace")
    (item,) = client.get(collection, ["IMG_0001.png"])
    assert item.attributes["path"] == str(tmp_path / "two" / "IMG_0001.png")


def test_many_taken_ids_are_one_line(fovea_command: Fovea, collection: str, tmp_path: Path) -> None:
    for number, camera in enumerate(("one", "two")):
        (tmp_path / camera).mkdir()
        for image in range(5):
            (tmp_path / camera / f"{image}.png").write_bytes(picture(10 * number + image))
    (tmp_path / "two" / "broken.jpg").write_bytes(BROKEN)
    add(fovea_command, collection, tmp_path / "one")
    listed = tmp_path / "broken.jsonl"
    done = fovea_command("index", "add", tmp_path / "two", "--collection", collection, "--broken", listed)
    assert done.exit_code == 1
    head, broken, taken = done.stderr.splitlines()[-3:]
    assert head == "6 of 6 files weren't indexed:"
    assert broken.startswith("broken.jpg: ")
    assert taken == (
        "5 ids are those of other images: 0.png, 1.png, 2.png, …; give the ids of this source a --prefix, "
        "for instance cam2/, or --replace what is there"
    )
    messages = [json.loads(line)["message"] for line in listed.read_text().splitlines()]
    assert sum("its id is that of another image, " in message for message in messages) == 5


@pytest.mark.parametrize("declared", [True, False])
def test_equal_files_are_embedded_once(
    fovea_command: Fovea,
    client: Client,
    collection: str,
    tmp_path: Path,
    embedded: Embedded,
    declared: bool,
) -> None:
    if not declared:
        client.create_collection(collection, storage="float16")
    folder = tmp_path / "copies"
    folder.mkdir()
    for number in range(90):  # in one batch and in several
        (folder / f"{number:02}.png").write_bytes(picture(number % 3 if number < 60 else number % 2))
    text = add(fovea_command, collection, folder)
    assert text.startswith(f"indexed 90 images of {folder}, 87 of them with the vector of the same content;")
    assert embedded() == 3
    found = vectors(client, collection)
    assert len(found) == 90
    for name, vector in found.items():
        number = int(name[:2])
        original = number % 3 if number < 60 else number % 2
        np.testing.assert_array_equal(vector, found[f"{original:02}.png"])
        np.testing.assert_allclose(vector, expected_embedding(of_class(original, 60 + original)), atol=1e-3)


def test_a_copy_that_comes_later_takes_the_vector_that_is_there(
    fovea_command: Fovea, client: Client, collection: str, album: Path, tmp_path: Path, embedded: Embedded
) -> None:
    add(fovea_command, collection, album)
    embedded()
    shutil.copytree(album, tmp_path / "other" / "copy")
    text = add(fovea_command, collection, tmp_path / "other")
    assert text.startswith(f"indexed 40 images of {tmp_path / 'other'}, 40 of them with the vector of")
    assert embedded() == 0
    found = vectors(client, collection)
    np.testing.assert_array_equal(found["copy/red/00.png"], found["red/00.png"])


def test_the_first_of_equal_files_is_gone_or_another_meanwhile(
    fovea_command: Fovea, client: Client, collection: str, album: Path, tmp_path: Path, embedded: Embedded
) -> None:
    add(fovea_command, collection, album)
    # Its attributes say one content, and by its id there is another now.
    client.upsert(collection, [Item("red/00.png", image=picture(150))])
    client.delete(collection, ["green/01.png"])
    embedded()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "x.png").write_bytes(picture(0))
    (tmp_path / "two" / "y.png").write_bytes(picture(1))
    add(fovea_command, collection, tmp_path / "two")
    assert embedded() == 2
    found = vectors(client, collection)
    np.testing.assert_allclose(found["x.png"], expected_embedding(of_class(0, 60)), atol=1e-6)


def test_equal_broken_files_are_all_listed(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(70):
        (folder / f"{number:02}.jpg").write_bytes(BROKEN if number else picture(0))
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    (folder / "no-file.jpg").symlink_to(folder / "nowhere")
    listed = tmp_path / "broken.jsonl"
    done = fovea_command("index", "add", folder, "--collection", collection, "--broken", listed)
    assert done.exit_code == 1
    assert "72 of 73 files weren't indexed:" in done.stderr
    assert f"… and {72 - broken_module._MOST_SHOWN} more; all of them are in {listed}" in done.stderr
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    messages = {line["id"]: line["message"] for line in lines}
    assert messages.keys() == {path.name for path in folder.iterdir()} - {"00.jpg"}
    assert {line["code"] for line in lines} == {"INVALID_ARGUMENT"}
    assert messages["pipe.jpg"] == "isn't a regular file; expected an image file"
    assert messages["large.jpg"].startswith(f"has {MAX_IMAGE_BYTES + 1:,} bytes; expected at most")
    assert messages["no-file.jpg"] == "can't be read: No such file or directory"
    assert [item.id for item in client.scan(collection)] == ["00.jpg"]

    (folder / "01.jpg").write_bytes(picture(3))
    done = fovea_command("index", "add", folder, "--collection", collection, "--broken", listed)
    assert len(listed.read_text().splitlines()) == 71  # all that are broken now, not only new ones
    assert "1 were there already; collection" in done.stdout


def test_a_broken_list_that_cannot_be_written(fovea_command: Fovea, collection: str, album: Path) -> None:
    done = fovea_command("index", "add", album, "--collection", collection, "--broken", album / "none" / "x")
    assert done.exit_code == 1
    assert "can't be written: No such file or directory" in done.stderr


def test_file_names_that_are_no_utf8_or_too_long(
    fovea_command: Fovea, client: Client, collection: str, tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    deep = folder / ("d" * 200) / ("e" * 200) / ("f" * 200)
    deep.mkdir(parents=True)
    (deep / "a.png").write_bytes(picture(0))
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff \xc3\xa4 #?.png")
    Path(odd).write_bytes(picture(1))
    done = fovea_command("index", "add", folder, "--collection", collection)
    assert done.exit_code == 1
    assert "its id has 608 bytes; expected 1 to 512" in done.stderr.replace("\n", "")
    (item,) = client.scan(collection)
    assert item.id == "\ufffd ä #?.png"
    assert str(item.attributes["uri"]).endswith("/names/%FF%20%C3%A4%20%23%3F.png")


def test_attributes_of_another_type_are_refused(
    fovea_command: Fovea, client: Client, collection: str, album: Path
) -> None:
    client.create_collection(collection, attributes={"size_bytes": "string"})
    done = fovea_command("index", "add", album, "--collection", collection)
    assert done.exit_code == 1
    assert "declares 'size_bytes' as string; expected int" in done.stderr
    done = fovea_command(
        "index", "add", album, "--collection", collection + "-2", "--attribute", "sha256=int"
    )
    assert "declares 'sha256' as int; expected string" in done.stderr
    assert collection + "-2" not in {each.name for each in client.collections()}


def test_where_nothing_could_be_indexed_it_says_how_to_begin_anew(
    fovea_command: Fovea, collection: str, album: Path
) -> None:
    named = ("--collection", collection)
    done = fovea_command("index", "add", album, *named, "--attribute", "label=int")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-2:] == [
        f"indexed 0 images of {album}; collection {collection!r} has 0 images",
        f"to begin anew with other attributes or another model: fovea index drop --collection {collection}",
    ]
    assert fovea_command("index", "drop", "--yes", *named).exit_code == 0
    assert fovea_command("index", "add", album, *named).exit_code == 0


def test_an_existing_collection_keeps_its_schema(
    fovea_command: Fovea, client: Client, collection: str, album: Path
) -> None:
    client.create_collection(collection, attributes={"label": "int"})
    done = fovea_command("index", "add", album, "--collection", collection, "--attribute", "label=string")
    assert "declares 'label' as int, not as string" in done.stderr
    done = fovea_command("index", "add", album, "--collection", collection, "--attribute", "year=int")
    assert (
        f"collection {collection!r} doesn't declare 'year'; a collection's attributes are set" in done.stderr
    )
    done = fovea_command("index", "add", album, "--collection", collection)
    assert done.exit_code == 1
    assert "doesn't declare sha256=string: equal images are embedded once in this run" in done.stderr
    assert (
        f"collection {collection!r} doesn't declare path, uri: stored with each image, but no filter can ask "
        "for them and `fovea index reembed` finds no images\n"
    ) in done.stderr
    assert "blue/02.png: its label is 'blue'; expected an int of 64 bits" in done.stderr


def test_what_is_not_declared_is_stored_all_the_same(
    fovea_command: Fovea, client: Client, collection: str, album: Path
) -> None:
    client.create_collection(collection)
    add(fovea_command, collection, album)
    [item] = client.get(collection, ["green/01.png"])
    assert item.attributes["label"] == "green"
    assert item.attributes["uri"] == (album / "green" / "01.png").as_uri()


def test_a_collection_of_own_vectors_takes_no_images(
    fovea_command: Fovea, client: Client, collection: str, album: Path
) -> None:
    client.create_collection(collection, dimension=24)
    done = fovea_command("index", "add", album, "--collection", collection)
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: collection {collection!r} takes your own vectors, not images; index into another one with "
        "--collection\n"
    )
    assert client.count(collection) == 0


def test_sources_that_are_none(fovea_command: Fovea, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    done = fovea_command("index", "add", tmp_path / "a.txt")
    assert done.exit_code == 2
    assert "expected one, a table (.csv or .parquet) or .tar shards" in " ".join(done.stderr.split())
    done = fovea_command("index", "add", tmp_path, tmp_path)
    assert done.exit_code == 2
    assert "got 2 sources; expected one folder or table, or any number of .tar shards" in done.stderr
    done = fovea_command("index", "add", tmp_path / "absent")
    assert done.exit_code == 2


def test_a_touched_file_is_not_embedded_again_where_sha256_is_not_declared(
    fovea_command: Fovea, client: Client, collection: str, album: Path, embedded: Embedded
) -> None:
    client.create_collection(collection)
    add(fovea_command, collection, album)
    assert embedded() == PICTURES
    for file in album.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    assert add(fovea_command, collection, album).startswith("indexed 40 images of ")
    assert embedded() == 0
    assert {item.attributes["modified_ns"] for item in client.scan(collection)} == {1}


def test_a_vector_is_taken_only_of_an_item_that_has_the_content_still(
    client: Client, collection: str
) -> None:
    made = client.create_collection(collection, attributes={"sha256": "string"})
    stored = Stored(client, made)
    client.upsert(
        collection,
        [
            Item(name, image=picture(number), attributes={"sha256": name})
            for number, name in enumerate(("a", "b", "c"))
        ],
    )
    for name in ("a", "b", "c"):
        stored.remember(name, name)
    client.upsert(collection, [Item("b", image=picture(9), attributes={"sha256": "other"})])
    client.delete(collection, ["c"])
    assert stored.holders(["a", "b", "c", "d"]) == {"a": "a", "b": "b", "c": "c"}
    assert stored.vectors({"a": "a", "b": "b", "c": "c"}).keys() == {"a"}


def test_a_prefix_that_is_no_utf_8(fovea_command: Fovea, collection: str, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture(0))
    done = fovea_command("index", "add", tmp_path, "--collection", collection, "--prefix", "caf\udce9/")
    assert done.exit_code == 2
    assert "--prefix" in done.stderr
    assert "expected UTF-8" in done.stderr
