"""What fit's --data, and export's --images and --calibration, may name: a folder, a table, or shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError, ExportError
from training.folder import list_folder
from training.image_files import find_images
from training.layout import ALL, parts_of
from training.listing import Listing
from training.samples import read_samples
from training.shards import (
    SHARD_SUFFIX,
    find_shards,
    is_pattern,
    is_shards,
    list_shards,
    numbered_names,
    part_of,
)
from training.source import Source
from training.table import TABLE_SUFFIXES, list_table
from training.table_rows import read_table


def list_source(data: str) -> Listing:
    """The labelled pictures of a folder, a table or shards.

    Raises:
        DataError: as `list_folder`, `list_table`, `list_shards`; or a folder on the way can't be read.
    """
    try:
        if is_table(data):
            return list_table(Path(data))
        return list_shards(data) if is_shards(data) else list_folder(Path(data))
    except OSError as error:
        raise DataError(f"{error.filename or data}: can't be read: {error.strerror}") from error


def source_name(data: str) -> str:
    """A short name for the data, without a look at them: as `Listing.name`."""
    if data == "digits":
        return data
    path = Path(data).resolve()
    if is_table(data) or (path.suffix.lower() == SHARD_SUFFIX and not is_pattern(data)):
        return path.stem
    while is_pattern(str(path)) and not path.exists():
        path = path.parent
    return path.name or "data"


def is_folder(data: str) -> bool:
    """Whether it is a folder of image files."""
    return not is_table(data) and not is_shards(data)


def is_table(data: str) -> bool:
    """Whether its name is a table's; a folder may be called so too."""
    return Path(data).suffix.lower() in TABLE_SUFFIXES and not Path(data).is_dir()


@dataclass(frozen=True)
class Pictures:
    """Pictures that needn't be labelled.

    Attributes:
        sources: where they lie.
        labels: the one class of each; None where it has none or several.
    """

    sources: list[Source]
    labels: list[str | None]


def find_pictures(data: Path, parts: Sequence[str] = ()) -> Pictures:
    """The pictures of a folder, a table or shards: of the first of `parts` that it has, else all.

    Raises:
        DataError: it can't be read.
        ExportError: it has none.
    """
    try:
        found = _parted(str(data), parts)
    except OSError as error:
        raise DataError(f"{error.filename or data}: can't be read: {error.strerror}") from error
    chosen = next((part for part in parts if part in found), None)
    having = [found[chosen]] if chosen else list(found.values())
    pictures = Pictures(
        [source for part in having for source in part.sources],
        [label for part in having for label in part.labels],
    )
    if not pictures.sources:
        raise ExportError(f"no images in {data}")
    return pictures


def _parted(data: str, parts: Sequence[str]) -> dict[str, Pictures]:
    found: dict[str, Pictures] = {}

    def add(part: str, source: Source, labels: Sequence[str]) -> None:
        pictures = found.setdefault(part, Pictures([], []))
        pictures.sources.append(source)
        pictures.labels.append(labels[0] if len(labels) == 1 else None)

    # As `list_source` tells them apart.
    if is_table(data):
        for row in read_table(Path(data)).rows:
            add(row.part, row.path, row.labels or ())
    elif is_shards(data):
        root, shards = find_shards(data)
        names = numbered_names(root)
        for sample in read_samples(shards, root).samples:
            labels = [] if sample.several else [names.get(label, label) for label in sample.labels or ()]
            add(part_of(sample.shard, root), sample.source, labels)
    else:
        folder = Path(data)
        folders = parts_of(folder) if parts else {ALL: folder}
        for part, inner in folders.items():
            for path in find_images(inner).paths:
                add(part, path, path.relative_to(inner).parts[:1])
    return found
