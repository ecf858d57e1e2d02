"""The image files under a folder; where they lie in class folders, their folder's name is the label."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from fovea import AttributeType

from service.cli.bulk.attributes import LABEL, check_id, of_file
from service.cli.bulk.entry import Entry, Unusable, text
from service.cli.image_files import SUFFIXES, image_files


class Folder:
    """An item's id is its file's path inside the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.columns: Mapping[str, AttributeType] = {}
        self.knows_all = True
        self.name = text(str(folder))
        self.empty = f"no image files under {self.name}; looked for {' '.join(sorted(SUFFIXES))}"

    def count(self) -> int:
        """How many image files there are."""
        return sum(1 for _ in self._files())

    def entries(self) -> Iterator[Entry]:
        """The image files, a folder's own before those of its folders, by their names.

        Raises:
            click.ClickException: a folder can't be read.
        """
        for file in self._files():
            attributes = of_file(file)
            if file.parent != self._folder:
                attributes[LABEL] = text(file.parent.name)
            item_id = text(file.relative_to(self._folder).as_posix())
            try:
                check_id(item_id)
                yield Entry(item_id, file, attributes)
            except Unusable as error:
                yield Entry(item_id, file, {}, fault=str(error))

    def _files(self) -> Iterator[Path]:
        try:
            yield from image_files(self._folder, strict=True)
        except OSError as error:
            raise click.ClickException(
                f"{error.filename or self._folder} can't be read: {error.strerror or error}"
            ) from error
