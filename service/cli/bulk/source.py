"""What `fovea index add` takes images from."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import click
from fovea import AttributeType

from service.cli.bulk.attributes import check_id
from service.cli.bulk.entry import Entry, Unusable
from service.cli.bulk.folder import Folder
from service.cli.bulk.shards import SHARD_SUFFIX, Shards
from service.cli.bulk.table import TABLE_SUFFIXES, Table
from service.cli.image_files import image_files


class Source(Protocol):
    """Images to index.

    Attributes:
        name: for messages.
        columns: attributes beside add's own, name → type, as far as the source knows them.
        knows_all: whether no image has other attributes than these and add's own.
        empty: the complaint where there are no images.
    """

    name: str
    columns: Mapping[str, AttributeType]
    knows_all: bool
    empty: str

    def count(self) -> int:
        """How many images there are, without reading one."""

    def entries(self) -> Iterator[Entry]:
        """The images, in the same order each time; none is read.

        Raises:
            click.ClickException: the source itself can't be read.
        """


class Prefixed:
    """A source whose ids all begin with a text, so that they are unlike those of another."""

    def __init__(self, source: Source, prefix: str) -> None:
        self._source, self._prefix = source, prefix
        self.name, self.columns, self.empty = source.name, source.columns, source.empty
        self.knows_all = source.knows_all

    def count(self) -> int:
        """How many images there are, without reading one."""
        return self._source.count()

    def entries(self) -> Iterator[Entry]:
        """See `Source.entries`."""
        for entry in self._source.entries():
            named = replace(entry, id=self._prefix + entry.id)
            try:
                check_id(named.id)
            except Unusable as error:
                named = replace(named, fault=named.fault or str(error))
            yield named


def open_source(paths: tuple[Path, ...]) -> Source:
    """Tell by its name what kind of source it is: a folder, a table, or shards.

    Raises:
        click.ClickException: it is none of them, several where one is expected, or can't be read.
    """
    first = paths[0]
    if all(path.suffix.lower() == SHARD_SUFFIX and path.is_file() for path in paths):
        return Shards(paths)
    if len(paths) > 1:
        raise click.UsageError(
            f"got {len(paths)} sources; expected one folder or table, or any number of {SHARD_SUFFIX} shards"
        )
    if first.is_dir():
        shards = _shards_in(first)
        return Shards(shards, first) if shards else Folder(first)
    if first.suffix.lower() in TABLE_SUFFIXES:
        return Table(first)
    raise click.UsageError(
        f"{first} is no folder; expected one, a table ({' or '.join(TABLE_SUFFIXES)}) or "
        f"{SHARD_SUFFIX} shards"
    )


def _shards_in(folder: Path) -> tuple[Path, ...]:
    """The shards of a folder that holds no images; what they were packed from often lies beside them."""
    try:
        found = sorted(
            path
            for path in folder.rglob(f"*{SHARD_SUFFIX}")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
    except OSError as error:
        raise click.ClickException(f"{folder} can't be read: {error.strerror or error}") from error
    if not found or next(image_files(folder), None) is not None:
        return ()
    return tuple(found)
