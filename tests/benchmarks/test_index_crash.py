"""What benchmarks/index_crash takes for a loss."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.index_crash import SPEC, State, applied, difference, made, open_index, stored, tiered, vector
from service.errors import IndexUnusable, SnapshotUnusable
from service.retrieval.embedded import DERIVED_FOLDER
from service.retrieval.record import FILE_NAME


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Items "id-0" to "id-9" of the writes 0 to 9."""
    index = open_index(tmp_path)
    index.create(SPEC)
    index.upsert("photos", [made(f"id-{n}", n) for n in range(10)])
    index.close()
    shutil.rmtree(tmp_path / DERIVED_FOLDER)
    return tmp_path


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        connection.execute(statement, values)


def test_what_is_there_is_told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert stored(folder) == {f"id-{n}": n for n in range(10)}
    change(folder, "DELETE FROM items WHERE id = 'id-3'")
    assert stored(folder) == {f"id-{n}": n for n in range(10) if n != 3}
    assert stored(tmp_path_factory.mktemp("empty")) == {}


def test_a_vector_of_another_write_is_a_loss(folder: Path) -> None:
    change(folder, "UPDATE items SET vector = ? WHERE id = 'id-3'", vector(77).tobytes())
    with pytest.raises(AssertionError, match="the vector of id-3 is another write's"):
        stored(folder)


def test_a_broken_database_is_a_loss(folder: Path) -> None:
    data = bytearray((folder / FILE_NAME).read_bytes())
    data[len(data) // 3 :] = b"\xa5" * len(data[len(data) // 3 :])
    (folder / FILE_NAME).write_bytes(data)
    with pytest.raises(IndexUnusable):
        stored(folder)


def test_an_export_cut_short_is_a_loss(folder: Path) -> None:
    (folder / "photos.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SnapshotUnusable):
        stored(folder)


def test_calls_are_applied_as_the_index_does() -> None:
    state: State = {"a": 1, "b": 2, "c": 3}
    assert applied(state, {"begin": "upsert", "ids": ["c", "d"], "value": 4}) == {
        "a": 1,
        "b": 2,
        "c": 4,
        "d": 4,
    }
    assert applied(state, {"begin": "delete", "ids": ["a", "x"], "value": 4}) == {"b": 2, "c": 3}
    below = {"begin": "delete_matching", "ids": ["a"], "value": 4, "below": 3}
    assert applied(state, below) == {"c": 3}
    assert applied(state, {"begin": "replace", "ids": ["d"], "value": 4}) == {"d": 4}
    assert applied(state, {"begin": "flush", "ids": ["d"], "value": 4}) == state


def test_differences_are_told_in_words() -> None:
    acknowledged = {"a": 1, "b": 2}
    assert difference({"b": 2}, acknowledged, acknowledged).startswith("1 lost ['a'], 0 came back")
    assert "1 came back ['c']" in difference({**acknowledged, "c": 1}, acknowledged, acknowledged)
    assert "1 are of another write" in difference({"a": 7, "b": 2}, acknowledged, {"a": 3, "b": 2})


def test_a_tier_goes_later_than_it_comes() -> None:
    assert [tiered(count, before=False) for count in (255, 256)] == [False, True]
    assert [tiered(count, before=True) for count in (127, 128)] == [False, True]
