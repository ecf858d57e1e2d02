"""The rows of a CSV or Parquet table, each cell checked; see `table.py` for the columns.

CSV is read by Python's own module, not by Arrow's: it tells the line that a cell stands on, also after blank
lines and cells with line breaks in them.
"""

import csv
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError, SettingError
from training.layout import ALL, PART_NAMES, PART_OF
from training.splits import MULTI_LABEL, SINGLE_LABEL

PATH, LABEL, LABELS, SPLIT = "path", "label", "labels", "split"
_BETWEEN_LABELS = re.compile("[;|]")
_ROWS_AT_A_TIME = 65_536

_Numbered = Iterator[tuple[int, Sequence[object]]]


@dataclass(frozen=True, slots=True)
class Row:
    """An image of the table.

    Attributes:
        number: for messages: in CSV the line, where the header is 1; in Parquet from 1.
        path: of the file.
        name: the path relative to the table's folder, or absolute where the file lies elsewhere.
        labels: each once; None where the table has none.
        part: 'train', 'val', 'test', or `layout.ALL` where the table doesn't say.
    """

    number: int
    path: Path
    name: str
    labels: tuple[str, ...] | None
    part: str


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes:
        file: where it was read from.
        columns: all of them, as written.
        task: 'single_label', 'multi_label', or None where it has no labels.
        rows: in its order.
    """

    file: Path
    columns: tuple[str, ...]
    task: str | None
    rows: list[Row]


def read_table(file: Path) -> Table:
    """Read every row; the images aren't touched, and needn't be labelled.

    Raises:
        DataError: the file can't be read, has no column path or both label and labels, or a cell can't be
            used (names row and column).
    """
    if not file.is_file():
        raise DataError(f"{file} is no regular file; expected a .csv or .parquet table")
    # Of a link the folder that the table really lies in, as the run will record it.
    folder = file.resolve().parent
    reader = _Parquet(file) if file.suffix.lower() == ".parquet" else _Csv(file)
    try:
        columns = reader.columns()
        places = _places(file, columns)
        task = MULTI_LABEL if LABELS in places else SINGLE_LABEL if LABEL in places else None
        interned: dict[tuple[str, ...], tuple[str, ...]] = {}
        rows = []
        for number, cells in reader.rows():
            row = _Cells(file, number, {column: cells[place] for column, place in places.items()})
            labels = row.labels(task)
            if labels is not None:
                # A million rows needn't keep a million copies of the same few texts.
                labels = interned.setdefault(labels, labels)
            path = row.path()
            rows.append(Row(number, folder / path, image_name(path, folder), labels, row.part()))
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror or error}") from error
    return Table(file, columns, task, rows)


def image_name(path: str, folder: Path) -> str:
    """What a cell's path is called: relative to the table's folder where it lies in it, with slashes.

    Args:
        path: as in the cell.
        folder: absolute.
    """
    if posixpath.isabs(path) and Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    return posixpath.normpath(path)


class _Cells:
    """What one row has in the columns that count."""

    def __init__(self, file: Path, number: int, cells: Mapping[str, object]) -> None:
        self._file, self._number, self._cells = file, number, cells

    def path(self) -> str:
        path = self._cells[PATH]
        if not isinstance(path, str) or not path or "\0" in path:
            raise self._refused(PATH, "the path of an image file")
        return path

    def part(self) -> str:
        if SPLIT not in self._cells:
            return ALL
        cell = self._cells[SPLIT]
        part = PART_OF.get(cell.strip().casefold()) if isinstance(cell, str) else None
        if part is None:
            raise self._refused(SPLIT, ", ".join(name for names in PART_NAMES.values() for name in names))
        return part

    def labels(self, task: str | None) -> tuple[str, ...] | None:
        if task is None:
            return None
        if task == SINGLE_LABEL:
            return (self._label(LABEL, self._cells[LABEL]),)
        cell = self._cells[LABELS]
        if cell is None:
            return ()
        if isinstance(cell, str):
            cell = [part for part in _BETWEEN_LABELS.split(cell) if part.strip()]
        named = [self._label(LABELS, item) for item in (cell if isinstance(cell, list) else [cell])]
        return tuple(dict.fromkeys(named))

    def _label(self, column: str, cell: object) -> str:
        label = str(cell).strip() if isinstance(cell, str | int) else ""
        if not label or not label.isprintable():
            raise self._refused(column, "a class: a text that can be printed, or a whole number")
        return label

    def _refused(self, column: str, expected: str) -> DataError:
        value = self._cells[column]
        return DataError(
            f"{self._file}: row {self._number}, column {column}: the value is {value!r}; expected {expected}"
        )


def _places(file: Path, columns: Sequence[str]) -> dict[str, int]:
    """Where the columns that count stand."""
    places: dict[str, int] = {}
    for place, column in enumerate(columns):
        name = column.strip().casefold()
        if name in (PATH, LABEL, LABELS, SPLIT):
            if name in places:
                raise DataError(f"{file} has two columns {name}; expected one")
            places[name] = place
    if PATH not in places:
        raise DataError(
            f"{file} has no column path; expected a header with path, label or labels, and perhaps split, "
            f"but it has {', '.join(map(repr, columns)) or 'none'}"
        )
    if LABEL in places and LABELS in places:
        raise DataError(
            f"{file} has the columns label and labels; expected label for one class an image, or labels for "
            "several"
        )
    return places


class _Csv:
    """Commas, double quotes, UTF-8 with or without a byte order mark, a header."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def columns(self) -> tuple[str, ...]:
        for _, cells in self._lines():
            return tuple(cells)
        raise DataError(f"{self._file} is empty; expected a header and a row for each image")

    def rows(self) -> _Numbered:
        lines = self._lines()
        _, header = next(lines)
        for number, cells in lines:
            if len(cells) != len(header):
                raise DataError(
                    f"{self._file}: row {number} has {len(cells)} cell{'s' * (len(cells) != 1)}; expected "
                    f"{len(header)}, one for each column: {', '.join(header)}"
                )
            yield number, cells

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Lines that aren't blank, numbered by where they begin."""
        with self._file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True, skipinitialspace=True)
            number = 1
            try:
                for cells in reader:
                    if cells:
                        yield number, cells
                    number = reader.line_num + 1
            except (csv.Error, UnicodeDecodeError) as error:
                what = "isn't UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                raise DataError(f"{self._file}: row {number} or after it: {what}") from error


class _Parquet:
    """Arrow's reader, a group of rows at a time."""

    def __init__(self, file: Path) -> None:
        try:
            # Needed by these tables only, and slow to import.
            from pyarrow import ArrowException, parquet
        except ModuleNotFoundError as error:
            raise SettingError(
                f"{file}: reading Parquet needs pyarrow, which isn't installed: pip install "
                "'fovea-serving[train]'"
            ) from error
        self._file, self._broken = file, ArrowException
        try:
            self._parquet = parquet.ParquetFile(file)
        except ArrowException as error:
            raise self._unreadable(error) from error

    def columns(self) -> tuple[str, ...]:
        return tuple(self._parquet.schema_arrow.names)

    def rows(self) -> _Numbered:
        columns = self.columns()
        # Not pictures that may be in there too.
        wanted = [name for name in columns if name.strip().casefold() in (PATH, LABEL, LABELS, SPLIT)]
        number = 0
        try:
            for batch in self._parquet.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=wanted):
                values: dict[str, list[Any]] = batch.to_pydict()
                for cells in zip(*(values.get(name, [None] * len(batch)) for name in columns), strict=True):
                    number += 1
                    yield number, cells
        except self._broken as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self._file} can't be read as Parquet: {str(error).splitlines()[0]}")
