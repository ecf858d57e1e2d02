"""The rows of a Parquet table, a group at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from fovea import AttributeType

_ROWS_AT_A_TIME = 1024
_LISTS = ("labels",)


class ParquetRows:
    """Cells have their columns' types; columns that can't be attributes, such as pictures, aren't read."""

    def __init__(self, file: Path) -> None:
        """Read the schema.

        Raises:
            click.ClickException: it can't be read, or pyarrow isn't installed.
        """
        try:
            # Needed by these tables only, and slow to import.
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"{file}: reading Parquet needs pyarrow, which isn't installed: pip install "
                "'fovea-serving[server]'"
            ) from error
        self._file, self._arrow, self._parquet = file, pyarrow, parquet
        with self._opened() as opened:
            schema = opened.schema_arrow
        names = schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise click.ClickException(f"{file} has two columns {twice!r}; expected one")
        self.columns: Mapping[str, AttributeType | None] = {
            field.name: self._type(field.name, field.type) for field in schema
        }

    def count(self) -> int:
        """How many rows there are."""
        with self._opened() as opened:
            return int(opened.metadata.num_rows)

    def rows(self) -> Iterator[tuple[int, list[Any] | str]]:
        """Each row's number, from 1, and its cells."""
        wanted = [name for name, declared in self.columns.items() if declared is not None]
        number = 0
        with self._opened() as opened:
            for batch in opened.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=wanted):
                values = {name: _plain(cells) for name, cells in batch.to_pydict().items()}
                for place in range(len(batch)):
                    number += 1
                    yield number, [values[name][place] if name in values else None for name in self.columns]

    def _type(self, name: str, arrow_type: Any) -> AttributeType | None:
        types = self._arrow.types
        if types.is_dictionary(arrow_type):
            arrow_type = arrow_type.value_type
        if types.is_boolean(arrow_type):
            return "bool"
        if types.is_integer(arrow_type):
            return "int"
        if types.is_floating(arrow_type):
            return "float"
        texts = types.is_string(arrow_type) or types.is_large_string(arrow_type)
        if texts or (types.is_temporal(arrow_type) and not types.is_duration(arrow_type)):
            return "string"
        lists = types.is_list(arrow_type) or types.is_large_list(arrow_type)
        return "string" if lists and name.strip().casefold() in _LISTS else None

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with self._parquet.ParquetFile(self._file) as opened:
                yield opened
        except (OSError, self._arrow.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise click.ClickException(f"{self._file} can't be read as Parquet: {reason}") from error


def _plain(cells: list[Any]) -> list[Any]:
    """Times and dates as ISO 8601."""
    return [cell.isoformat() if hasattr(cell, "isoformat") else cell for cell in cells]
