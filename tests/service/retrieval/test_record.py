"""The database: what is refused at opening, and writes that fail."""

import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.errors import IndexUnusable, Unavailable
from service.retrieval.checks import Batch
from service.retrieval.embedded import DERIVED_FOLDER, EmbeddedIndex
from service.retrieval.filters import Equals, Exists
from service.retrieval.index import CollectionSpec, Item, Metric, Storage
from service.retrieval.migrations import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from service.retrieval.record import FILE_NAME, Record
from service.retrieval.schema import AttributeType

SPEC = CollectionSpec("photos", 64, Metric.L2, "", {"n": AttributeType.INT})


def items(start: int, stop: int) -> list[Item]:
    return [Item(str(n), np.full(64, n, np.float32), {"n": n}) for n in range(start, stop)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a closed index of 500 items."""
    index = EmbeddedIndex(tmp_path)
    index.create(SPEC)
    index.upsert("photos", items(0, 500))
    index.close()
    return tmp_path


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        yield connection


def refusal(folder: Path) -> str:
    """Why it can't be opened; always the same, as a refusal leaves no lock."""
    # Rows that are in these files aren't read from the database.
    shutil.rmtree(folder / DERIVED_FOLDER, ignore_errors=True)
    reasons = []
    for _ in range(2):
        with pytest.raises(IndexUnusable) as caught:
            EmbeddedIndex(folder)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert str(folder / FILE_NAME) in reasons[0]
    return reasons[0]


def test_closing_leaves_one_database_file(folder: Path) -> None:
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert files == ["lock", FILE_NAME]


def test_writes_are_flushed_at_commit(folder: Path) -> None:
    """2 is FULL: anything less loses acknowledged writes when the power goes."""
    record = Record(folder / FILE_NAME)
    connection = record._connection  # the setting belongs to the connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    record.close()


def test_a_collection_is_read_in_order_without_sorting(folder: Path) -> None:
    with database(folder) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM items WHERE collection = 1 ORDER BY sequence"
        ).fetchall()
    assert [line[3] for line in plan] == ["SEARCH items USING INDEX items_of_collection (collection=?)"]


def test_sequence_numbers_are_never_given_twice(tmp_path: Path) -> None:
    def numbers() -> list[int]:
        with database(tmp_path) as connection:
            return [
                number for (number,) in connection.execute("SELECT sequence FROM items ORDER BY sequence")
            ]

    seen: set[int] = set()
    for opening in range(4):
        index = EmbeddedIndex(tmp_path)
        if opening == 0:
            index.create(SPEC)
        index.upsert("photos", items(0, 3))
        index.close()
        assert len(numbers()) == 3
        assert seen.isdisjoint(numbers())
        seen.update(numbers())
        index = EmbeddedIndex(tmp_path)
        index.delete("photos", ["0", "1", "2"])
        index.close()


def test_ties_keep_the_order_of_writing_through_a_restart(tmp_path: Path) -> None:
    order = ["m", "z", "a", "é", "b", "10", "9"]
    index = EmbeddedIndex(tmp_path)
    index.create(SPEC)
    index.upsert("photos", [Item(name, np.ones(64, np.float32)) for name in ["b", *order[:4]]])
    index.upsert("photos", [Item(name, np.ones(64, np.float32)) for name in order[4:]])  # "b" again
    for _ in range(2):
        [neighbors] = index.search("photos", np.zeros((1, 64), np.float32), 10)
        assert [neighbor.id for neighbor in neighbors] == order
        index.close()
        index = EmbeddedIndex(tmp_path)
    index.close()


def test_a_write_that_fails_halfway_is_rolled_back(tmp_path: Path) -> None:
    record = Record(tmp_path / FILE_NAME)
    key = record.create(SPEC)
    with pytest.raises(ValueError, match="zip"):
        record.write(key, SPEC, Batch(["a", "b"], np.zeros((2, 64), np.float32), ["{}"]))
    record.write(key, SPEC, Batch(["c"], np.zeros((1, 64), np.float32), ["{}"]))
    assert [part.ids for part, _ in record.read(key, SPEC)] == [["c"]]
    record.close()


def test_a_newer_schema_is_refused(folder: Path) -> None:
    with database(folder) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert f"schema version {SCHEMA_VERSION + 1}; this release reads up to {SCHEMA_VERSION}" in refusal(
        folder
    )


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with database(tmp_path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = (tmp_path / FILE_NAME).read_bytes()
    assert "another program's database" in refusal(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"\xff" * 10_000)
    reason = refusal(folder)
    assert "file is not a database" in reason
    assert "restore the folder from a backup, or move it away" in reason


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_overwritten_pages_are_told(folder: Path, share: float) -> None:
    path = folder / FILE_NAME
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    data[start : start + 40_000] = b"\xa5" * len(data[start : start + 40_000])
    path.write_bytes(data)
    assert "restore the folder from a backup" in refusal(folder)


def test_a_database_cut_short_is_told(folder: Path) -> None:
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "restore the folder from a backup" in refusal(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("UPDATE items SET vector = x'0000' WHERE id = '7'", "the vector of item '7'; expected 256 bytes"),
        ("UPDATE items SET vector = 'text' WHERE id = '7'", "the vector of item '7'; expected 256 bytes"),
        (
            "UPDATE items SET vector = CAST(zeroblob(252) || x'0000c07f' AS BLOB) WHERE id = '7'",
            "item '7'; expected finite",
        ),
        ("UPDATE items SET attributes = '[1' WHERE id = '7'", "attributes of item '7'"),
        ("UPDATE items SET attributes = x'ff' WHERE id = '7'", "attributes of item '7'"),
        ("UPDATE items SET attributes = '[1]' WHERE id = '7'", "attributes of item '7'"),
        ("UPDATE items SET attributes = '{\"n\":\"7\"}' WHERE id = '7'", "'n' is not an int of 64 bits"),
        ("UPDATE items SET id = CAST(x'ff' AS TEXT) WHERE id = '7'", "UTF-8"),
        ("UPDATE collections SET metric = 'hamming'", "hamming"),
        ("UPDATE collections SET storage = 'int8'", "int8"),
        ('UPDATE collections SET attributes = \'{"n":"list"}\'', "'list' is not a valid AttributeType"),
        ("UPDATE collections SET attributes = '[]'", "collection 'photos'"),
        ("DROP TABLE items", "no such table"),
    ],
)
def test_values_that_we_never_write_are_told(folder: Path, damage: str, reason: str) -> None:
    with database(folder) as connection:
        connection.execute(damage)
    assert reason in refusal(folder)


def test_a_failed_migration_leaves_no_half_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE_NAME
    with monkeypatch.context() as patch:
        broken = ("CREATE TABLE one (x); CREATE TABLE one (x)",)
        patch.setattr("service.retrieval.record.MIGRATIONS", broken)
        with pytest.raises(IndexUnusable, match="table one already exists"):
            Record(path)
    with database(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    Record(path).close()


def test_an_older_schema_is_brought_up_to_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.retrieval import record

    ladder = (*MIGRATIONS, "ALTER TABLE collections ADD COLUMN note TEXT NOT NULL DEFAULT 'none'")
    monkeypatch.setattr(record, "MIGRATIONS", ladder)
    monkeypatch.setattr(record, "SCHEMA_VERSION", len(ladder))
    for _ in range(2):
        index = EmbeddedIndex(folder)
        assert index.count("photos") == 500
        index.close()
    with database(folder) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(ladder),)
        assert connection.execute("SELECT note FROM collections").fetchone() == ("none",)


def released(path: Path) -> None:
    """A database as the first release wrote it: its migration, and rows as it inserted them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            f"BEGIN; {MIGRATIONS[0]}; PRAGMA user_version = 1;"
            f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )
        connection.executemany(
            "INSERT INTO collections (name, dimension, metric, fingerprint) VALUES (?, ?, ?, ?)",
            [("photos", 2, "l2", "m:fp32"), ("art", 3, "cosine", "")],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO items (collection, id, vector, attributes) VALUES (?, ?, ?, ?)",
            [
                (1, "a", np.array([1, 2], "<f4").tobytes(), '{"label":"cat"}'),
                (1, "b", np.array([3, 4], "<f4").tobytes(), '{"label":7}'),
                (1, "a", np.array([5, 6], "<f4").tobytes(), '{"label":"dog"}'),
                (2, "c", np.array([0, 0.6, 0.8], "<f4").tobytes(), "{}"),
            ],
        )


def test_a_database_of_the_first_release_is_migrated_and_keeps_everything(tmp_path: Path) -> None:
    released(tmp_path / FILE_NAME)
    for _ in range(2):
        index = EmbeddedIndex(tmp_path)
        assert [(info.spec, info.count) for info in index.list_collections()] == [
            (CollectionSpec("art", 3, Metric.COSINE, "", {}, Storage.FLOAT32), 1),
            (CollectionSpec("photos", 2, Metric.L2, "m:fp32", {}, Storage.FLOAT32), 2),
        ]
        first, second = index.get("photos", ["a", "b"])
        np.testing.assert_array_equal([first.vector, second.vector], [[5, 6], [3, 4]])
        assert (first.attributes, second.attributes) == ({"label": "dog"}, {"label": 7})
        [neighbors] = index.search("photos", np.array([[4, 5]], np.float32), 9)
        assert [neighbor.id for neighbor in neighbors] == ["b", "a"]  # a tie: "a" was written last
        index.close()
    index = EmbeddedIndex(tmp_path)
    index.create(CollectionSpec("new", 2, Metric.L2, "", {"n": AttributeType.INT}, Storage.FLOAT16))
    index.upsert("new", [Item("x", np.ones(2, np.float32), {"n": 1})])
    index.upsert("photos", [Item("d", np.ones(2, np.float32))])
    assert (index.count("new", Equals("n", 1)), index.count("photos")) == (1, 3)
    index.close()
    with database(tmp_path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        numbers = connection.execute("SELECT sequence FROM items ORDER BY sequence").fetchall()
        assert numbers[-2:] == [(5,), (6,)]  # none is given twice, the replaced "a" had 1


@pytest.mark.parametrize(("storage", "size"), [(Storage.FLOAT32, 256), (Storage.FLOAT16, 128)])
def test_vectors_take_the_bytes_of_their_storage(tmp_path: Path, storage: Storage, size: int) -> None:
    index = EmbeddedIndex(tmp_path)
    index.create(CollectionSpec("photos", 64, Metric.L2, "", storage=storage))
    index.upsert("photos", items(0, 3))
    index.close()
    with database(tmp_path) as connection:
        assert connection.execute("SELECT DISTINCT length(vector) FROM items").fetchall() == [(size,)]
        connection.execute("UPDATE items SET vector = zeroblob(6) WHERE id = '1'")
    assert f"the vector of item '1'; expected {size} bytes" in refusal(tmp_path)


def test_ids_are_paged_from_an_index(folder: Path) -> None:
    with database(folder) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM items WHERE collection = 1 AND id > 'a' ORDER BY id LIMIT 9"
        ).fetchall()
    assert [line[3] for line in plan] == [
        "SEARCH items USING COVERING INDEX sqlite_autoindex_items_1 (collection=? AND id>?)"
    ]


def test_the_record_is_read_in_bounded_parts(tmp_path: Path) -> None:
    record = Record(tmp_path / FILE_NAME)
    spec = CollectionSpec("wide", 65_536, Metric.L2, "")
    key = record.create(spec)
    ids = [str(n) for n in range(70)]
    record.write(key, spec, Batch(ids, np.zeros((70, 65_536), np.float32), ["{}"] * 70))
    assert [len(part.ids) for part, _ in record.read(key, spec)] == [4] * 17 + [2]
    record.close()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel refuses writes beyond it, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_disk_refuses_changes_nothing(folder: Path) -> None:
    index = EmbeddedIndex(folder)
    query = np.zeros((1, 64), np.float32)
    before = index.search("photos", query, 1000)
    with file_size_limit(1024):
        with pytest.raises(IndexUnusable, match="nothing was changed by this call"):
            index.upsert("photos", items(400, 5000))
        with pytest.raises(IndexUnusable, match="nothing was changed by this call"):
            index.delete("photos", [str(n) for n in range(500)])
        with pytest.raises(IndexUnusable, match="nothing was changed by this call"):
            index.drop("photos")
        assert index.search("photos", query, 1000) == before
    index.upsert("photos", items(500, 510))
    assert index.delete("photos", ["0"]) == 1
    after = index.search("photos", query, 1000)
    assert len(after[0]) == 509
    index.close()
    index = EmbeddedIndex(folder)
    assert index.search("photos", query, 1000) == after
    index.close()


def test_calls_after_closing_are_refused(folder: Path) -> None:
    index = EmbeddedIndex(folder)
    index.close()
    index.close()
    with pytest.raises(Unavailable, match="the index is closed"):
        index.count("photos")
    with pytest.raises(Unavailable, match="the index is closed"):
        index.upsert("photos", items(0, 1))
    with pytest.raises(Unavailable, match="the index is closed"):
        index.create(SPEC)
    with pytest.raises(Unavailable, match="the index is closed"):
        index.scan("photos", condition=Exists("n"))
