"""Files of segments and tiers: a restart takes them where they are right, else the record."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from service.errors import IndexUnusable
from service.retrieval.embedded import DERIVED_FOLDER, EmbeddedIndex
from service.retrieval.index import CollectionSpec, Item, Metric, SearchOptions, Storage
from service.retrieval.schema import AttributeType
from tests.service.retrieval.clusters import DIMENSION, drawn

ROWS, CAPACITY, MIN_TIER_ROWS = 1000, 128, 400
SPEC = CollectionSpec("photos", DIMENSION, Metric.COSINE, "m", {"parity": AttributeType.INT}, Storage.FLOAT16)
EXACT = SearchOptions(recall=1.0)


def opened(folder: Path) -> EmbeddedIndex:
    return EmbeddedIndex(folder, max_segment_rows=CAPACITY, min_tier_rows=MIN_TIER_ROWS)


def put(index: EmbeddedIndex, numbers: range, seed: int = 1, name: str = "photos") -> None:
    vectors = drawn(numbers.stop, seed)
    index.upsert(name, [Item(f"id {n}", vectors[n], {"parity": n % 2, "é": "\n"}) for n in numbers])


def contents(index: EmbeddedIndex, name: str = "photos") -> list[tuple[str, bytes, dict[str, Any]]]:
    with index.items(name) as pages:
        return [(i.id, i.vector.tobytes(), dict(i.attributes)) for page in pages for i in page]


def answers(index: EmbeddedIndex) -> list[list[tuple[str, float]]]:
    found = index.search("photos", drawn(20, 9), 7, options=EXACT)
    return [[(neighbor.id, neighbor.score) for neighbor in line] for line in found]


def files(folder: Path, pattern: str = "*.segment") -> list[Path]:
    return sorted((folder / DERIVED_FOLDER).glob(pattern))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an index with a collection that was closed in order."""
    folder = tmp_path / "index"
    index = opened(folder)
    index.create(SPEC)
    put(index, range(ROWS))
    index.delete("photos", [f"id {n}" for n in range(100, 110)])
    index.flush("photos")
    index.close()
    return folder


@pytest.fixture
def state(folder: Path) -> Iterator[tuple[Any, Any]]:
    """What the folder holds, by way of the record alone."""
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / DERIVED_FOLDER)
    index = opened(copy)
    yield contents(index), answers(index)
    index.close()


def reopened(folder: Path) -> tuple[tuple[Any, Any], list[dict[str, Any]], str]:
    """Contents and answers, the log, and the type of the collection's index right after the start."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        index = opened(folder)
    index_type = index.describe("photos").index_type
    try:
        # Tiers are made in the background.
        told = [dict(line) for line in lines if line["event"] != "search_tier_made"]
        return (contents(index), answers(index)), told, index_type
    finally:
        index.close()


def test_a_restart_reads_nothing_from_the_record(folder: Path, state: tuple[Any, Any]) -> None:
    assert len(files(folder)) == 8
    given, lines, index_type = reopened(folder)
    assert given == state
    assert lines == []
    assert index_type == "1-bit"
    assert len(given[0]) == ROWS - 10


def test_without_files_the_record_is_read_and_that_is_told(folder: Path, state: tuple[Any, Any]) -> None:
    shutil.rmtree(folder / DERIVED_FOLDER)
    given, lines, _ = reopened(folder)
    assert given == state
    [line] = [line for line in lines if line["event"] == "rebuilt_from_record"]
    assert (line["collection"], line["items"], line["of"]) == ("photos", ROWS - 10, ROWS - 10)
    assert len(files(folder)) == 8  # written at the close


@pytest.mark.parametrize("which", [0, 3, -1])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty", "another's"])
def test_one_file_is_bad(folder: Path, state: tuple[Any, Any], which: int, damage: str) -> None:
    path = files(folder)[which]
    data = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
        case "empty":
            path.write_bytes(b"")
        case "another's":
            path.write_bytes(files(folder)[1].read_bytes())
    given, lines, index_type = reopened(folder)
    assert given == state
    assert index_type == "1-bit"
    events = [line["event"] for line in lines]
    assert (
        events == ["rebuilt_from_record"]
        if damage == "missing"
        else events.count("segment_file_left_out") == 1
    )
    assert 1 <= lines[-1]["items"] <= CAPACITY
    assert reopened(folder)[:2] == (state, [])  # the close has written it again


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_the_tiers_file_is_bad(folder: Path, state: tuple[Any, Any], damage: str) -> None:
    [path] = files(folder, "*.tier")
    data = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-1])
        case "flipped":
            path.write_bytes(data[:-500] + bytes([data[-500] ^ 1]) + data[-499:])
    given, lines, _ = reopened(folder)
    assert given == state
    assert [line["event"] for line in lines] == ([] if damage == "missing" else ["tier_file_left_out"])


def test_what_was_written_after_the_files_is_replayed(folder: Path) -> None:
    """Files of before stand in for those of a kill: rows since then come from the record, deletions too."""
    old = folder.parent / "old"
    shutil.copytree(folder / DERIVED_FOLDER, old)
    index = opened(folder)
    put(index, range(50, 60), seed=7)  # replaced
    put(index, range(ROWS, ROWS + 300), seed=7)
    index.delete("photos", [f"id {n}" for n in range(200, 320)])
    expected = contents(index), answers(index)
    index.close()
    shutil.rmtree(folder / DERIVED_FOLDER)
    shutil.copytree(old, folder / DERIVED_FOLDER)
    given, _, _ = reopened(folder)
    assert given == expected


def test_a_record_restored_from_a_backup_wins(folder: Path) -> None:
    """It gives out again the sequence numbers that files already have."""
    backup = folder.parent / "backup.sqlite"
    shutil.copy(folder / "record.sqlite", backup)
    index = opened(folder)
    put(index, range(ROWS, ROWS + 500), seed=7)
    index.flush("photos")
    index.close()
    shutil.copy(backup, folder / "record.sqlite")
    shutil.copytree(folder / DERIVED_FOLDER, folder.parent / "newer")
    index = opened(folder)
    put(index, range(2000, 2500), seed=8)
    expected = contents(index), answers(index)
    index.close()
    shutil.rmtree(folder / DERIVED_FOLDER)
    shutil.copytree(folder.parent / "newer", folder / DERIVED_FOLDER)
    given, _, _ = reopened(folder)
    assert given == expected


def test_files_go_with_their_collection(folder: Path) -> None:
    index = opened(folder)
    index.create(CollectionSpec("other", DIMENSION, Metric.COSINE, ""))
    put(index, range(300), name="other")
    index.flush("other")
    assert len(files(folder)) == 8 + 3
    index.replace("photos", "other")
    index.close()
    assert len(files(folder)) == 3
    assert files(folder, "*.tier") == []
    index = opened(folder)
    assert index.count("photos") == 300
    index.drop("photos")
    index.close()
    assert files(folder) == []


def test_what_a_kill_leaves_is_removed(folder: Path, state: tuple[Any, Any]) -> None:
    derived = folder / DERIVED_FOLDER
    (derived / ".1-1.segment.abcd.partial").write_bytes(b"half")
    shutil.copy(files(folder)[0], derived / "77-1.segment")
    (derived / "77.tier").write_bytes(b"")
    assert reopened(folder)[:2] == (state, [])
    assert len(list(derived.iterdir())) == 9


def test_a_flush_that_the_disk_refuses_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    index = opened(folder)
    put(index, range(ROWS, ROWS + 10))
    with monkeypatch.context() as patch:
        patch.setattr("service.retrieval.segment_files.write_sections", refuse)
        with pytest.raises(IndexUnusable, match=r"No space left on device.*safe"):
            index.flush("photos")
    index.flush("photos")
    assert index.count("photos") == ROWS
    index.close()
    assert reopened(folder)[1] == []


def test_attributes_are_columns_again(folder: Path) -> None:
    from service.retrieval.filters import Equals

    index = opened(folder)
    assert index.count("photos", Equals("parity", 1)) == (ROWS - 10) // 2
    options = SearchOptions(filter=Equals("parity", 1))
    for line in index.search("photos", drawn(5, 9), 10, options=options):
        assert len(line) == 10
        assert all(neighbor.attributes["parity"] == 1 for neighbor in line)
    assert np.isfinite([n.score for n in line]).all()
    index.close()
