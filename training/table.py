"""A table of images, CSV or Parquet → a listing.

Columns, in any order and case; others are passed over:

path    of the image: absolute, or relative to the table's folder
label   its class; or instead
labels  its classes, none or several, with ; or | between them, or as a list: the task is then multi-label
split   train, val or test, by the names that folders may have; without it parts are made by hash

Classes are those of the training rows, sorted: as numbers where all are whole numbers, else as text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.errors import DataError
from training.layout import ALL, PART_NAMES
from training.listing import Entry, Listing, check_class_names, check_recordable, class_order
from training.splits import MULTI_LABEL
from training.table_rows import LABEL, LABELS, Row, Table, read_table

TABLE_SUFFIXES = (".csv", ".parquet")


def list_table(file: Path) -> Listing:
    """Read a table of labelled images.

    Raises:
        DataError: it can't be read, a column is missing, a cell can't be used (names row and column), or
            its parts don't fit each other.
    """
    check_recordable(file)
    table = read_table(file)
    if table.task is None:
        raise DataError(
            f"{file} has no column label or labels, but {', '.join(table.columns)}; expected one of them"
        )
    if not table.rows:
        raise DataError(f"{file} has no rows; expected one for each image")
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        rows.setdefault(row.part, []).append(row)
    _check_parts(file, rows)
    classes = class_order(label for row in rows.get(ALL) or rows["train"] for label in row.labels or ())
    check_class_names(classes, file, table.task)
    index = {name: label for label, name in enumerate(classes)}
    return Listing(
        name=file.stem,
        origin=file,
        classes=classes,
        # In the order of train, val and test, whatever row comes first.
        parts={
            part: [_entry(row, index, table) for row in rows[part]]
            for part in (ALL, *PART_NAMES)
            if part in rows
        },
        titles={part: f"the {part} rows" for part in rows if part != ALL},
        keyed_by="each path relative to the table's folder",
        expected="rows whose files are images",
        task=table.task,
    )


def _check_parts(file: Path, rows: Mapping[str, Iterable[Row]]) -> None:
    if ALL in rows or ("train" in rows and len(rows) > 1):
        return
    counts = Counter({part: sum(1 for _ in having) for part, having in rows.items()})
    held = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    raise DataError(
        f"{file}: column split gives {held}; expected train with val or test or both, or no column split"
    )


def _entry(row: Row, index: Mapping[str, int], table: Table) -> Entry:
    unknown = [label for label in row.labels or () if label not in index]
    if unknown:
        column = LABELS if table.task == MULTI_LABEL else LABEL
        raise DataError(
            f"{table.file}: row {row.number}, column {column}: {unknown[0]!r} is no class of the train rows, "
            f"which have {_some(index)}"
        )
    labels = tuple(sorted(index[label] for label in row.labels or ()))
    return Entry(row.path, labels, row.name, row.name)


def _some(names: Iterable[str], most: int = 20) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
