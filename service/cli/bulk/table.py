"""A table of images, CSV or Parquet, with the columns that training reads, and others as attributes.

path    of the image: absolute, or relative to the table's folder
id      of its item; without it the path, relative to the table's folder where it lies in it
label   its class; or labels: several, with ; between them or as a list

These names stand in any case. Every other column is an attribute of its name; an empty cell is none.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import click
from fovea import AttributeType

from service.cli.bulk.attributes import LABEL, OWN, PATH, URI, check_id, of_file
from service.cli.bulk.csv_rows import CsvRows
from service.cli.bulk.entry import Entry, Unusable, text
from service.cli.bulk.parquet_rows import ParquetRows

TABLE_SUFFIXES = (".csv", ".parquet")
_ID, _LABELS = "id", "labels"
_KNOWN = (PATH, _ID, LABEL, _LABELS, "split", URI)
Row = Sequence[object] | str


class Rows(Protocol):
    """A table's rows.

    Attributes:
        columns: name → type of its attributes, as written; None for what can't be one.
    """

    columns: Mapping[str, AttributeType | None]

    def count(self) -> int:
        """How many rows there are."""

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Each row's number and cells, one for each column, or what is wrong with it."""


class Table:
    """Rows are read as they are needed."""

    def __init__(self, file: Path) -> None:
        """Read the header.

        Raises:
            click.ClickException: it can't be read, or its columns can't be used.
        """
        self._file, self.name = file, text(str(file))
        self.empty = f"{self.name} has no rows; expected one for each image"
        # Of a link the folder that the table really lies in, as for training.
        self._folder = file.resolve().parent
        self._rows: Rows = ParquetRows(file) if file.suffix.lower() == ".parquet" else CsvRows(file)
        self._names = [_name(column) for column in self._rows.columns]
        self._check_names()
        self.columns: Mapping[str, AttributeType] = {
            name: "string" if name in _KNOWN else declared
            for name, declared in zip(self._names, self._rows.columns.values(), strict=True)
            if declared is not None and name and name not in (PATH, _ID)
        }
        self.knows_all = True

    def count(self) -> int:
        """How many rows there are."""
        return self._rows.count()

    def entries(self) -> Iterator[Entry]:
        """The rows' images.

        Raises:
            click.ClickException: the table is damaged.
        """
        for number, row in self._rows.rows():
            try:
                yield self._entry(row)
            except Unusable as error:
                # A path may be missing, so the row stands for it.
                name = f"{self._file.name}: row {number}"
                yield Entry(name, self._folder, {}, fault=str(error))

    def _entry(self, row: Row) -> Entry:
        if isinstance(row, str):
            raise Unusable(row)
        cells = dict(zip(self._names, row, strict=True))
        path = cells.pop(PATH)
        if not isinstance(path, str) or not path or "\0" in path:
            raise Unusable(f"its path is {path!r}; expected the path of an image file")
        name = cells.pop(_ID, None)
        item_id = _image_name(path, self._folder) if name is None or name == "" else str(name)
        check_id(item_id)
        if isinstance(labels := cells.get(_LABELS), list):
            cells[_LABELS] = ";".join(map(str, labels))
        place = self._folder / path
        given = {name: cell for name, cell in cells.items() if name in self.columns}
        if not given.get(URI):
            given.pop(URI, None)
        return Entry(item_id, place, {**of_file(place), **given})

    def _check_names(self) -> None:
        twice = {name for name in self._names if name and self._names.count(name) > 1}
        if twice:
            raise click.ClickException(f"{self._file} has two columns {sorted(twice)[0]}; expected one")
        if PATH not in self._names:
            listed = ", ".join(map(repr, self._names)) or "none"
            raise click.ClickException(
                f"{self._file} has no column path; expected one with the images' paths, and perhaps id, "
                f"label and others, but it has {listed}"
            )
        own = [name for name in self._names if name in OWN]
        if own:
            raise click.ClickException(
                f"{self._file} has a column {own[0]}; expected another name: that attribute is written by "
                "`fovea index add` itself"
            )


def _name(column: str) -> str:
    stripped = column.strip()
    return stripped.casefold() if stripped.casefold() in _KNOWN else stripped


def _image_name(path: str, folder: Path) -> str:
    if posixpath.isabs(path) and Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    return posixpath.normpath(path)
