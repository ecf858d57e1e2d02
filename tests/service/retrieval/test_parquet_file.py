"""Collections as Parquet files: what goes in comes out, and other programs can read it."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.errors import InvalidRequest, NotConfigured, SnapshotUnusable, VectorMismatch
from service.retrieval import parquet_file
from service.retrieval.index import CollectionSpec, Item, Metric, Storage
from service.retrieval.parquet_file import open_collection, write_collection
from service.retrieval.schema import AttributeType

SCHEMA = {
    "id": AttributeType.STRING,  # as a column is called already
    "year": AttributeType.INT,
    "a.b ü": AttributeType.FLOAT,
    "sharp": AttributeType.BOOL,
}
SPEC = CollectionSpec("photos", 3, Metric.INNER_PRODUCT, "f:fp32", SCHEMA)
ITEMS = [
    Item(
        "ü", np.array([0.1, -2, 3e30], np.float32), {"id": "x", "year": -(2**63), "a.b ü": 1.0, "sharp": True}
    ),
    Item("b", np.array([0, 0, 0], np.float32), {}),
    Item("c", np.array([1, 2, 3], np.float32), {"sharp": False, "free": "ß"}),
]


def plain(items: list[Item]) -> list[tuple[str, list[float], dict[str, Any]]]:
    return [(item.id, item.vector.tolist(), dict(item.attributes)) for item in items]


def read(path: Path) -> list[Item]:
    with open_collection(path) as file:
        return [item for batch in file.batches() for item in batch]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file that is there."""
    path = tmp_path / "photos.parquet"
    assert write_collection(path, SPEC, [ITEMS[:1], [], ITEMS[1:]]) == 3
    return path


@pytest.mark.parametrize("storage", Storage)
@pytest.mark.parametrize("metric", Metric)
def test_what_goes_in_comes_out(tmp_path: Path, storage: Storage, metric: Metric) -> None:
    path = tmp_path / "photos.parquet"
    spec = CollectionSpec("photos", 40, metric, "", SCHEMA, storage)
    vectors = np.random.default_rng(2).normal(size=(300, 40)).astype(np.float16).astype(np.float32)
    items = [Item(f"{n}", vector, {"year": n, "free": -1.5}) for n, vector in enumerate(vectors)]
    assert write_collection(path, spec, [items[:7], items[7:]]) == 300
    with open_collection(path) as file:
        assert (file.spec, file.count) == (spec, 300)
        found = [item for batch in file.batches() for item in batch]
    assert plain(found) == plain(items)
    assert {item.vector.dtype for item in found} == {np.dtype(np.float32)}
    assert path.stat().st_size > 300 * 40 * (2 if storage is Storage.FLOAT16 else 4)


def test_types_of_attributes_stay(path: Path) -> None:
    assert plain(read(path)) == plain(ITEMS)
    first = read(path)[0].attributes
    assert [type(value) for value in first.values()] == [str, int, float, bool]


def test_other_programs_read_its_columns(path: Path) -> None:
    table = parquet.read_table(path)
    assert table.column("id").to_pylist() == ["ü", "b", "c"]
    assert table.column("attribute_id").to_pylist() == ["x", None, None]
    assert table.column("attribute_year").to_pylist() == [-(2**63), None, None]
    assert table.column("attribute_a.b ü").to_pylist() == [1.0, None, None]
    assert table.column("attribute_sharp").to_pylist() == [True, None, False]
    assert table.column("vector").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 3)
    assert json.loads(table.column("attributes")[2].as_py()) == {"sharp": False, "free": "ß"}
    assert json.loads(table.schema.metadata[b"fovea"]) == {
        "format": 1,
        "name": "photos",
        "dimension": 3,
        "metric": "inner_product",
        "fingerprint": "f:fp32",
        "storage": "float32",
        "attributes": {"id": "string", "year": "int", "a.b ü": "float", "sharp": "bool"},
    }


def test_memory_is_bounded_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "_GROUP_BYTES", 1000)
    path = tmp_path / "many.parquet"
    spec = CollectionSpec("many", 10, Metric.L2, "")
    taken: list[int] = []

    def batches() -> Any:
        for start in range(0, 200, 5):
            taken.append(start)
            vectors = np.full((5, 10), start, np.float32)
            yield [Item(f"{start + n}", vector) for n, vector in enumerate(vectors)]

    seen: list[int] = []
    write_collection(path, spec, batches(), lambda: seen.append(len(taken)))
    assert parquet.ParquetFile(path).num_row_groups == len(seen) - 1 == 8
    assert seen[:3] == [5, 10, 15]  # each group is written before more is read
    with open_collection(path) as file:
        assert max(len(batch) for batch in file.batches()) <= 25
        assert sum(len(batch) for batch in file.batches()) == 200


def test_what_ends_the_writing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"

    def check() -> None:
        raise InvalidRequest("enough")

    with pytest.raises(InvalidRequest, match="enough"):
        write_collection(path, SPEC, [ITEMS], check)
    longer = [Item("long", np.zeros(4, np.float32))]
    with pytest.raises(VectorMismatch, match="'long' has dimension 4; collection photos has 3"):
        write_collection(path, SPEC, [ITEMS, longer])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_or_not_whole(path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:100], whole[:-1], b"x" + whole[1:-4] + b"XXXX"):
        path.write_bytes(content)
        with pytest.raises(SnapshotUnusable, match=r"photos\.parquet can't be read"):
            read(path)
    path.unlink()
    with pytest.raises(SnapshotUnusable, match="can't be read"):
        read(path)


def test_no_flipped_byte_of_the_data_goes_unseen(path: Path) -> None:
    whole = path.read_bytes()
    seen = 0
    for place in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert plain(read(path)) == plain(ITEMS)  # in what nobody reads, as a column's name in statistics
        except SnapshotUnusable:
            seen += 1
    assert seen > len(whole) / 11 / 3


def rewritten(path: Path, **changes: Any) -> None:
    """The file with another description."""
    table = parquet.read_table(path)
    document = json.loads(table.schema.metadata[b"fovea"]) | changes
    parquet.write_table(table.replace_schema_metadata({b"fovea": json.dumps(document)}), path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2; this release reads 1"),
        ({"metric": "hamming"}, "damaged"),
        ({"storage": "int8"}, "damaged"),
        ({"dimension": 4}, "column vector is .*; expected"),
        ({"dimension": "3"}, "damaged"),
        ({"dimension": 0}, "damaged"),
        ({"name": "../x"}, "damaged"),
        ({"attributes": {"a": "list"}}, "damaged"),
        ({"attributes": ["a"]}, "damaged"),
    ],
)
def test_a_description_that_does_not_fit(path: Path, changes: dict[str, Any], words: str) -> None:
    rewritten(path, **changes)
    with pytest.raises(SnapshotUnusable, match=words):
        read(path)


def test_another_programs_parquet(path: Path) -> None:
    parquet.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(SnapshotUnusable, match="Parquet of another program"):
        read(path)


def test_cells_that_cannot_be(path: Path) -> None:
    table = parquet.read_table(path)
    for text, words in (("[]", "expected a JSON object"), ("{", "aren't JSON"), (None, "empty cells")):
        column = pa.array([text] * 3, pa.string())
        parquet.write_table(
            table.set_column(2, "attributes", column).replace_schema_metadata(table.schema.metadata), path
        )
        with pytest.raises(SnapshotUnusable, match=words):
            read(path)


def test_without_pyarrow_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NotConfigured, match=r"pip install 'fovea-serving\[server\]'"):
        read(path)


def test_reading_holds_little_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "_GROUP_BYTES", 256 * 1024)
    path = tmp_path / "large.parquet"
    vector = np.random.default_rng(0).normal(size=1024).astype(np.float32)
    batches = ([Item(f"{start + n}", vector) for n in range(100)] for start in range(0, 5000, 100))
    write_collection(path, CollectionSpec("large", 1024, Metric.L2, ""), batches)
    before, most = pa.total_allocated_bytes(), 0
    with open_collection(path) as file:
        for _ in file.batches():
            most = max(most, pa.total_allocated_bytes() - before)
    assert path.stat().st_size > 20_000_000
    assert most < 5_000_000
