"""A collection as a Parquet file: what snapshots are, and how collections move between engines.

Columns: `id` (string), `vector` (fixed-size list of float32, or of float16 as the collection stores it),
`attributes` (a JSON object, the truth), and for other programs each declared attribute once more as
`attribute_<name>` (string, int64, double or bool; null: the item doesn't have it). The schema's metadata
has, under `fovea`, a JSON object: `format` (this format's version), `name`, `dimension`, `metric`,
`fingerprint`, `storage` and `attributes` (name → type). Pages carry checksums.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import (
    IndexUnusable,
    InvalidRequest,
    NotConfigured,
    SnapshotUnusable,
    VectorMismatch,
    shorten,
)
from service.retrieval.checks import check_spec
from service.retrieval.index import CollectionSpec, Item, Metric, Storage
from service.retrieval.schema import AttributeType, AttributeValue
from service.retrieval.whole_file import whole_file

FORMAT = 1
SUFFIX = ".parquet"
_METADATA_KEY = b"fovea"
# Of vectors and attributes in one row group: what is in memory at a time, a few times over.
_GROUP_BYTES = 8 * 1024 * 1024
_MAX_GROUP_ROWS = 65_536
_NUMBER_TYPES: Mapping[Storage, np.dtype[Any]] = {
    Storage.FLOAT32: np.dtype("<f4"),
    Storage.FLOAT16: np.dtype("<f2"),
}


def write_collection(
    path: Path,
    spec: CollectionSpec,
    batches: Iterable[list[Item]],
    check: Callable[[], None] = lambda: None,
) -> int:
    """Write items to a file, which is there whole or not at all; returns how many.

    Args:
        path: replaced if it is there.
        spec: the collection's.
        batches: its items, as `Index.items` gives them.
        check: called between row groups; what it raises ends the writing.

    Raises:
        VectorMismatch: an item's vector has another dimension.
        IndexUnusable: the file can't be written.
        NotConfigured: pyarrow isn't installed.
    """
    pa, parquet = _pyarrow()
    schema = _schema(pa, spec)
    count = 0
    try:
        with (
            whole_file(path) as partial,
            parquet.ParquetWriter(
                partial,
                schema,
                # Vectors don't shrink, and every id is another.
                compression={field.name: "ZSTD" for field in schema if field.name != "vector"},
                use_dictionary=[field.name for field in schema if field.name.startswith("attribute_")],
                write_statistics=[field.name for field in schema if field.name != "vector"],
                write_page_checksum=True,
            ) as writer,
        ):
            for items in _groups(batches, spec.dimension):
                check()
                writer.write_table(_table(pa, schema, spec, items), row_group_size=_MAX_GROUP_ROWS)
                count += len(items)
            check()
    except OSError as error:
        raise IndexUnusable(f"{path} can't be written: {error.strerror or error}") from error
    return count


class CollectionFile:
    """A file that `write_collection` wrote, being read.

    Attributes:
        spec: of the collection that it was written of, checked.
        count: how many items it has.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self.spec = _read_spec(path, file.schema_arrow)
        self.count: int = file.metadata.num_rows

    def batches(self) -> Iterator[list[Item]]:
        """The items, some megabytes at a time; vectors are float32 [dimension], as they were stored.

        Raises:
            SnapshotUnusable: the file is damaged.
        """
        rows = max(1, min(_MAX_GROUP_ROWS, _GROUP_BYTES // (4 * self.spec.dimension)))
        with _translated(self._path):
            columns = ["id", "vector", "attributes"]
            for batch in self._file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                yield self._items(batch)

    def _items(self, batch: Any) -> list[Item]:
        ids, vectors, texts = (batch.column(name) for name in ("id", "vector", "attributes"))
        if ids.null_count or texts.null_count or vectors.null_count or vectors.flatten().null_count:
            raise SnapshotUnusable(f"{self._path} is damaged: it has empty cells")
        numbers = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        rows = numbers.reshape(len(batch), self.spec.dimension)
        return [
            Item(name, vector, self._attributes(name, text))
            for name, vector, text in zip(ids.to_pylist(), rows, texts.to_pylist(), strict=True)
        ]

    def _attributes(self, name: str, text: str) -> Mapping[str, AttributeValue]:
        try:
            attributes = json.loads(text)
        except ValueError as error:
            raise SnapshotUnusable(
                f"{self._path} is damaged: the attributes of item {shorten(name)} aren't JSON: {error}"
            ) from error
        if not isinstance(attributes, dict):
            raise SnapshotUnusable(
                f"{self._path} is damaged: the attributes of item {shorten(name)} are "
                f"{shorten(attributes)}; expected a JSON object"
            )
        return attributes


@contextmanager
def open_collection(path: Path) -> Iterator[CollectionFile]:
    """Open a file that `write_collection` wrote; its last bytes, and so that it is whole, are checked now.

    Raises:
        SnapshotUnusable: there is no such file, or it is truncated, another program's or of a newer release.
        NotConfigured: pyarrow isn't installed.
    """
    _, parquet = _pyarrow()
    with _translated(path):
        # Its buffer would come to hold the whole file.
        file = parquet.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    with file:
        yield CollectionFile(path, file)


def _groups(batches: Iterable[list[Item]], dimension: int) -> Iterator[list[Item]]:
    group: list[Item] = []
    size_bytes = 0
    for batch in batches:
        for item in batch:
            group.append(item)
            # Attributes as JSON take about what their values take.
            size_bytes += 4 * dimension + sum(16 + len(str(value)) for value in item.attributes.values())
            if size_bytes >= _GROUP_BYTES or len(group) >= _MAX_GROUP_ROWS:
                yield group
                group, size_bytes = [], 0
    if group:
        yield group


def _table(pa: Any, schema: Any, spec: CollectionSpec, items: list[Item]) -> Any:
    numbers = np.empty((len(items), spec.dimension), _NUMBER_TYPES[spec.storage])
    for row, item in enumerate(items):
        if len(item.vector) != spec.dimension:  # the collection was replaced while it was read
            raise VectorMismatch(
                f"the vector of item {shorten(item.id)} has dimension {len(item.vector)}; "
                f"collection {spec.name} has {spec.dimension}"
            )
        numbers[row] = item.vector
    columns = [
        pa.array([item.id for item in items], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=schema.field("vector").type),
        pa.array(
            [json.dumps(dict(item.attributes), ensure_ascii=False, separators=(",", ":")) for item in items],
            pa.string(),
        ),
    ]
    for name in spec.attributes:
        values = [item.attributes.get(name) for item in items]
        columns.append(pa.array(values, schema.field(f"attribute_{name}").type))
    return pa.Table.from_arrays(columns, schema=schema)


def _schema(pa: Any, spec: CollectionSpec) -> Any:
    types = {
        AttributeType.STRING: pa.string(),
        AttributeType.INT: pa.int64(),
        AttributeType.FLOAT: pa.float64(),
        AttributeType.BOOL: pa.bool_(),
    }
    document = {
        "format": FORMAT,
        "name": spec.name,
        "dimension": spec.dimension,
        "metric": spec.metric.value,
        "fingerprint": spec.fingerprint,
        "storage": spec.storage.value,
        "attributes": {name: declared.value for name, declared in spec.attributes.items()},
    }
    number = pa.field("element", pa.from_numpy_dtype(_NUMBER_TYPES[spec.storage]), nullable=False)
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(number, spec.dimension), nullable=False),
            pa.field("attributes", pa.string(), nullable=False),
            *(pa.field(f"attribute_{name}", types[declared]) for name, declared in spec.attributes.items()),
        ],
        metadata={_METADATA_KEY: json.dumps(document, ensure_ascii=False).encode()},
    )


def _read_spec(path: Path, schema: Any) -> CollectionSpec:
    text = (schema.metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise SnapshotUnusable(f"{path} is Parquet of another program; expected a collection's file")
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise SnapshotUnusable(
                f"{path} has format {shorten(document['format'])}; this release reads {FORMAT}: use the "
                "release that wrote it"
            )
        spec = CollectionSpec(
            document["name"],
            document["dimension"],
            Metric(document["metric"]),
            document["fingerprint"],
            {name: AttributeType(declared) for name, declared in document["attributes"].items()},
            Storage(document["storage"]),
        )
        check_spec(spec)
    except (InvalidRequest, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SnapshotUnusable(f"{path} is damaged: its description: {error!r}") from error
    pa, _ = _pyarrow()
    expected = _schema(pa, spec)
    for name in ("id", "vector", "attributes"):
        wanted = expected.field(name).type
        found = schema.field(name).type if name in schema.names else None
        if found != wanted:
            raise SnapshotUnusable(f"{path} is damaged: column {name} is {found}; expected {wanted}")
    return spec


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    pa, _ = _pyarrow()
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        # A damaged footer, which has no checksum, brings pyarrow itself to some of these.
        raise SnapshotUnusable(
            f"{path} can't be read: {error}; expected a collection's file, whole and undamaged"
        ) from error


def _pyarrow() -> tuple[Any, Any]:
    """Imported late: few requests need it, and it takes a fifth of a second and 50 MB."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise NotConfigured(
            "collections' files need pyarrow, which isn't installed: pip install 'fovea-serving[server]'"
        ) from error
    return pyarrow, parquet
