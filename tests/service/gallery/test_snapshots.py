"""Snapshots of collections: written whole, restored whole, and nothing left of what fails."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.config import Config
from service.errors import (
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    IndexUnusable,
    InvalidRequest,
    NotConfigured,
    SnapshotExists,
    SnapshotNotFound,
    SnapshotUnusable,
)
from service.gallery.gallery import Gallery
from service.retrieval.index import CollectionSpec, Item, Metric, Storage
from service.retrieval.schema import AttributeType
from tests.client.waiting import eventually
from tests.service.gallery.conftest import CountingIndex, in_a_minute, opened
from tests.service.gallery.gate import Gate

SPEC = CollectionSpec(
    "photos",
    8,
    Metric.COSINE,
    "a model's:fp16",
    {"year": AttributeType.INT, "label": AttributeType.STRING},
    Storage.FLOAT16,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where snapshots lie."""
    return tmp_path / "snapshots"


@pytest.fixture
async def house(packages: Path, folder: Path, index: CountingIndex, stack: AsyncExitStack) -> Gallery:
    """A gallery with 500 items in `photos`."""
    config = Config(model_repository=packages, snapshot_path=str(folder))
    index.create(SPEC)
    index.upsert("photos", items(500))
    return await stack.enter_async_context(opened(config, index))


def items(count: int) -> list[Item]:
    vectors = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    return [
        Item(f"ü{n:04}", vector, {"year": 1900 + n, "other": 0.5} if n % 3 else {"label": f"l{n}"})
        for n, vector in enumerate(vectors)
    ]


def names(folder: Path) -> list[str]:
    """Of what is in it."""
    return sorted(path.name for path in folder.iterdir())


def content(index: CountingIndex, collection: str) -> list[tuple[str, list[float], dict[str, Any]]]:
    """In the order of writing, which ties go by."""
    with index.items(collection) as batches:
        return [(item.id, item.vector.tolist(), dict(item.attributes)) for batch in batches for item in batch]


async def test_a_restored_collection_is_the_same_to_the_bit(
    house: Gallery, index: CountingIndex, folder: Path
) -> None:
    index.delete("photos", ["ü0003"])
    index.upsert("photos", items(2)[:1])  # the first was written last
    before = content(index, "photos")
    started = int(time.time())
    written = await house.snapshots.write("photos", "first", in_a_minute())
    assert (written.name, written.size_bytes) == ("first", (folder / "first.parquet").stat().st_size)
    assert started <= written.created_s <= time.time()
    assert await house.snapshots.list_all(in_a_minute()) == [written]
    assert names(folder) == ["first.parquet"]

    made = await house.snapshots.restore("first", "copy", in_a_minute())
    assert made == index.describe("copy")
    assert (made.count, made.spec) == (499, replace(SPEC, name="copy"))
    assert content(index, "copy") == before
    assert [info.spec.name for info in index.list_collections()] == ["copy", "photos"]

    await house.collections.drop("photos", in_a_minute())
    again = await house.snapshots.restore("first", "", in_a_minute())
    assert again.spec == SPEC
    assert content(index, "photos") == before


async def test_an_empty_collection_can_be_saved_and_restored(house: Gallery, index: CountingIndex) -> None:
    index.create(CollectionSpec("empty", 65_536, Metric.L2, ""))
    await house.snapshots.write("empty", "e", in_a_minute())
    assert (await house.snapshots.restore("e", "copy", in_a_minute())).count == 0


async def test_the_default_name_is_the_collections_and_the_time(house: Gallery, index: CountingIndex) -> None:
    long = "a" * 128
    index.create(CollectionSpec(long, 2, Metric.L2, ""))
    for collection in ("photos", long):
        name = (await house.snapshots.write(collection, "", in_a_minute())).name
        start, dash, moment = name.rpartition("-")
        assert (start, dash) == (collection[:111], "-")
        time.strptime(moment, "%Y%m%dT%H%M%SZ")


async def test_a_taken_name_is_refused(house: Gallery, index: CountingIndex) -> None:
    await house.snapshots.write("photos", "first", in_a_minute())
    with pytest.raises(SnapshotExists, match="'first'"):
        await house.snapshots.write("photos", "first", in_a_minute())
    for collection in ("", "photos"):
        with pytest.raises(CollectionExists, match="'photos' exists already"):
            await house.snapshots.restore("first", collection, in_a_minute())
    assert index.count("photos") == 500


@pytest.mark.parametrize("name", ["../first", "/etc/passwd", "a/b", ".hidden", "a\0b", "a" * 129])
async def test_names_lead_nowhere_else(house: Gallery, folder: Path, tmp_path: Path, name: str) -> None:
    await house.snapshots.write("photos", "first", in_a_minute())
    (folder / "first.parquet").rename(tmp_path / "first.parquet")
    for call in (
        house.snapshots.write("photos", name, in_a_minute()),
        house.snapshots.restore(name, "copy", in_a_minute()),
    ):
        with pytest.raises(InvalidRequest, match=r"snapshot name .*; expected 1 to 128 letters"):
            await call
    with pytest.raises(InvalidRequest, match="collection name"):
        await house.snapshots.restore("first", name, in_a_minute())
    assert [name for name in names(tmp_path) if "." in name] == ["first.parquet"]


async def test_unknown_names_are_not_found(house: Gallery, folder: Path, tmp_path: Path) -> None:
    await house.snapshots.write("photos", "first", in_a_minute())
    (folder / "first.parquet").rename(tmp_path / "outside.parquet")
    (folder / "link.parquet").symlink_to(tmp_path / "outside.parquet")
    (folder / "folder.parquet").mkdir()
    await house.snapshots.write("photos", "second", in_a_minute())
    assert [snapshot.name for snapshot in await house.snapshots.list_all(in_a_minute())] == ["second"]
    for name in ("first", "link", "folder"):
        with pytest.raises(SnapshotNotFound, match=f"no snapshot '{name}'; there are: second"):
            await house.snapshots.restore(name, "copy", in_a_minute())
    with pytest.raises(CollectionNotFound, match="photos"):
        await house.snapshots.write("nobody's", "third", in_a_minute())
    assert not (folder / "third.parquet").exists()


async def test_a_damaged_file_leaves_nothing(house: Gallery, index: CountingIndex, folder: Path) -> None:
    await house.snapshots.write("photos", "first", in_a_minute())
    whole = (folder / "first.parquet").read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 3] ^= 0xFF
    for damaged in (b"", b"no Parquet", whole[: len(whole) // 2], whole[:-1], bytes(middle)):
        (folder / "bad.parquet").write_bytes(damaged)
        with pytest.raises(SnapshotUnusable):
            await house.snapshots.restore("bad", "copy", in_a_minute())
        assert [info.spec.name for info in index.list_collections()] == ["photos"]


async def test_one_moment_is_written_while_others_write(house: Gallery, index: CountingIndex) -> None:
    """Whatever is written meanwhile: each batch is there whole or not at all."""
    stop = threading.Event()
    index.create(CollectionSpec("busy", 8, Metric.L2, "", {"turn": AttributeType.INT}))

    def write() -> None:
        turn = 0
        while not stop.is_set():
            rows = np.full((50, 8), turn, np.float32)
            index.upsert("busy", [Item(f"{n}", row, {"turn": turn}) for n, row in enumerate(rows)])
            turn += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            await house.snapshots.write("busy", f"s{number}", in_a_minute())
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        await house.snapshots.restore(f"s{number}", f"c{number}", in_a_minute())
        turns = {values["turn"] for _, _, values in content(index, f"c{number}")}
        assert len(turns) <= 1


@pytest.fixture
def gate(index: CountingIndex, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """In the middle of reading `photos`, and before each write of items."""
    gate = Gate()
    items_of, upsert = index.items, index.upsert

    @contextmanager
    def slow_items(collection: str) -> Iterator[Iterator[list[Item]]]:
        with items_of(collection) as batches:

            def slowly() -> Iterator[list[Item]]:
                for batch in batches:
                    gate.wait()
                    yield batch

            yield slowly()

    def slow_upsert(collection: str, items: Sequence[Item]) -> None:
        gate.wait()
        upsert(collection, items)

    monkeypatch.setattr(index, "items", slow_items)
    monkeypatch.setattr(index, "upsert", slow_upsert)
    return gate


async def test_a_snapshot_whose_caller_leaves_is_not_written(
    house: Gallery, folder: Path, gate: Gate
) -> None:
    task = asyncio.create_task(house.snapshots.write("photos", "first", in_a_minute()))
    await gate.until_begun()
    with pytest.raises(SnapshotExists):  # the name is taken already
        await house.snapshots.write("photos", "first", in_a_minute())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(eventually, lambda: not names(folder))
    assert names(folder) == []
    await house.snapshots.write("photos", "first", in_a_minute())


async def test_a_restore_whose_caller_leaves_leaves_nothing(
    house: Gallery, index: CountingIndex, gate: Gate
) -> None:
    gate.opened.set()
    await house.snapshots.write("photos", "first", in_a_minute())
    gate.opened.clear()
    gate.begun.clear()
    task = asyncio.create_task(house.snapshots.restore("first", "copy", in_a_minute()))
    await gate.until_begun()
    assert [info.spec.name for info in await house.collections.list_all(in_a_minute())] == ["photos"]
    assert len(index.list_collections()) == 2  # under a name of its own, until it is whole
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(eventually, lambda: len(index.list_collections()) == 1)
    assert [info.spec.name for info in index.list_collections()] == ["photos"]


async def test_without_a_folder_it_says_which_setting(gallery: Gallery) -> None:
    for call in (
        gallery.snapshots.write("photos", "a", in_a_minute()),
        gallery.snapshots.restore("a", "", in_a_minute()),
        gallery.snapshots.list_all(in_a_minute()),
    ):
        with pytest.raises(NotConfigured, match="--snapshot-path"):
            await call


async def test_a_folder_that_cannot_be_made_stops_the_start(
    packages: Path, index: CountingIndex, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = Config(model_repository=packages, snapshot_path=str(tmp_path / "file" / "snapshots"))
    with pytest.raises(ConfigError, match="snapshot_path is "):
        async with opened(config, index):
            pass


async def test_what_a_kill_has_left_is_removed_at_the_start(
    packages: Path, index: CountingIndex, folder: Path
) -> None:
    os.mkdir(folder)  # noqa: PTH102 - which pathlib's would do, but not in a coroutine
    (folder / ".first.parquet.01234567.partial").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"mine")
    async with opened(Config(model_repository=packages, snapshot_path=str(folder)), index):
        assert names(folder) == ["notes.txt"]


async def test_a_disk_that_refuses_is_named(
    house: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(IndexUnusable, match=r"first\.parquet can't be written: No space left on device"):
        await house.snapshots.write("photos", "first", in_a_minute())
    assert names(folder) == []
