"""The list of images that could not be indexed: some of them to be read at the end, all in a file."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

import click

from service.cli.bulk.entry import Entry
from service.cli.bulk.step import Broken
from service.cli.connection import report

_MOST_SHOWN = 50
_MOST_TAKEN_NAMED = 3


class BrokenList:
    """Counts them, keeps the first, and writes each to the file at once: JSON lines of id, code, message.

    Attributes:
        count: how many there are.
    """

    def __init__(self, file: Path | None) -> None:
        """Make the file anew.

        Args:
            file: None: there is none.

        Raises:
            click.ClickException: it can't be written.
        """
        self.count = 0
        self._file, self._shown = file, list[Broken]()
        self._taken, self._taken_count = list[Broken](), 0
        self._lines: TextIO | None = None
        if file is not None:
            try:
                self._lines = file.open("w", encoding="utf-8")
            except OSError as error:
                raise click.ClickException(f"{file} can't be written: {error.strerror or error}") from error

    def __enter__(self) -> "BrokenList":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def add(self, broken: Broken) -> None:
        """Note one.

        Raises:
            click.ClickException: the file can't be written.
        """
        self.count += 1
        self._taken_count += broken.is_taken
        kept = self._taken if broken.is_taken else self._shown
        if len(kept) < _MOST_SHOWN:
            kept.append(broken)
        if self._lines is not None:
            line = {"id": broken.id, "code": broken.error.code, "message": broken.error.message}
            try:
                self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._lines.flush()
            except OSError as error:
                raise click.ClickException(
                    f"{self._file} can't be written: {error.strerror or error}"
                ) from error

    def show(self, total: int, what: str = "files weren't indexed") -> None:
        """Print the first of them, if there are any; of those whose ids are taken a few names."""
        if not self.count:
            return
        click.echo(f"{self.count:,} of {total:,} {what}:", err=True)
        for broken in self._shown:
            report(broken.id, broken.error)
        hidden = self.count - self._taken_count - len(self._shown)
        if hidden:
            place = f"; all of them are in {self._file}" if self._file else ""
            click.echo(f"… and {hidden:,} more{place}", err=True)

        self._show_taken()

    def _show_taken(self) -> None:
        if self._taken_count == 1:
            report(self._taken[0].id, self._taken[0].error)
        elif self._taken:
            names = ", ".join(each.id for each in self._taken[:_MOST_TAKEN_NAMED])
            more = ", …" if self._taken_count > _MOST_TAKEN_NAMED else ""
            click.secho(
                f"{self._taken_count:,} ids are those of other images: {names}{more}; give the ids of this "
                "source a --prefix, for instance cam2/, or --replace what is there",
                fg="red",
                err=True,
            )

    def first_other(self, entries: Iterable[Entry]) -> Entry | None:
        """The first entry that was indexed, where that is known without keeping every name."""
        ids = {broken.id for broken in (*self._shown, *self._taken)}
        known = len(self._shown) + len(self._taken)
        looked_at = itertools.islice(entries, len(ids) + 1) if self.count == known else ()
        return next((entry for entry in looked_at if entry.id not in ids), None)
