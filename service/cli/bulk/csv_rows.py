"""The rows of a CSV table: commas, double quotes, UTF-8 with or without a byte order mark, a header."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from fovea import AttributeType


class CsvRows:
    """Cells are texts. Python's own module tells the line that a row begins on, also after blank lines."""

    def __init__(self, file: Path) -> None:
        """Read the header.

        Raises:
            click.ClickException: it can't be read, or is empty.
        """
        self._file = file
        header = next(self._lines(), None)
        if header is None:
            raise click.ClickException(f"{file} is empty; expected a header and a row for each image")
        # A name that stands twice must be seen by who checks the names.
        self._header = header[1]
        if len(set(self._header)) < len(self._header):
            twice = next(name for name in self._header if self._header.count(name) > 1)
            raise click.ClickException(f"{file} has two columns {twice!r}; expected one")
        self.columns: Mapping[str, AttributeType | None] = dict.fromkeys(self._header, "string")

    def count(self) -> int:
        """How many rows there are."""
        return sum(1 for _ in self._lines()) - 1

    def rows(self) -> Iterator[tuple[int, list[str] | str]]:
        """Each row's line and cells, or what is wrong with it."""
        lines = self._lines()
        next(lines)
        for number, cells in lines:
            if len(cells) == len(self._header):
                yield number, cells
            else:
                yield number, f"it has {len(cells)} cells; expected {len(self._header)}, one for each column"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Lines that aren't blank, numbered by where they begin; the header is line 1."""
        number = 1
        try:
            with self._file.open(encoding="utf-8-sig", newline="") as text:
                reader = csv.reader(text, strict=True, skipinitialspace=True)
                for cells in reader:
                    if cells:
                        yield number, cells
                    number = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            what = "isn't UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise click.ClickException(f"{self._file}: row {number} or after it: {what}") from error
        except OSError as error:
            raise click.ClickException(f"{self._file} can't be read: {error.strerror or error}") from error
