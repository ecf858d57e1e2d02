"""Snapshots of segments: what a restart would else have to read row by row from the record.

A row under a sequence number never changes, so a file of rows is a cache, right whenever it was written. The
record says which sequence numbers live: a file's other rows are dead, and rows in no file are read from the
record. So any file may be missing, old or damaged, and the answers are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from service.retrieval.columns import Columns
from service.retrieval.index import CollectionSpec
from service.retrieval.own_pages import aligned_rows
from service.retrieval.section_file import BrokenFile, Buffer, SectionReader, write_sections
from service.retrieval.segments import Segment
from service.retrieval.stopping import Stop, Stopped
from service.retrieval.whole_file import remove_partial

log = structlog.get_logger()
_KIND = "segment"
_EMPTY = "{}"


def file_of(folder: Path, key: int, first: int) -> Path:
    """Where the segment that begins with a sequence number belongs."""
    return folder / f"{key}-{first}.segment"


def write_segment(folder: Path, key: int, segment: Segment) -> None:
    """Write the rows that a segment has.

    Raises:
        OSError: the disk refuses.
    """
    used = segment.used
    sequences = segment.sequences[:used]
    header = {
        "kind": _KIND,
        "collection": key,
        "dimension": segment.vectors.shape[1],
        "dtype": segment.vectors.dtype.name,
        "rows": used,
        "first": int(sequences[0]),
        "last": int(sequences[-1]),
        "largest_norm": segment.largest_norm,
    }
    sections: dict[str, Buffer] = {
        "sequences": sequences,
        "vectors": segment.vectors[:used],
        # Neither can hold its separator.
        "ids": "\0".join(segment.ids[:used]).encode(),
        "attributes": "\n".join(segment.attributes[:used]).encode(),
    }
    write_sections(file_of(folder, key, int(sequences[0])), header, sections)


def read_segment(
    path: Path, key: int, spec: CollectionSpec, capacity: int, live: NDArray[np.int64], after: int
) -> Segment:
    """A segment as its file has it, with those rows dead that live no more.

    Args:
        path: of the file.
        key: the collection's.
        spec: likewise.
        capacity: rows of a segment.
        live: int64, rising: the sequence numbers of the collection's items.
        after: all rows up to this sequence number are there already.

    Raises:
        BrokenFile: it is damaged or another collection's, or doesn't hold all that lives between its ends.
        OSError: it can't be read.
    """
    with path.open("rb", buffering=0) as file:
        reader = SectionReader(file)
        header = reader.header
        rows = header.get("rows")
        wanted = {"kind": _KIND, "collection": key, "dimension": spec.dimension, "dtype": spec.storage.value}
        if {name: header.get(name) for name in wanted} != wanted or not isinstance(rows, int):
            raise BrokenFile(f"it holds something else than {wanted}")
        if not 1 <= rows <= capacity:
            raise BrokenFile(f"it has {rows:,} rows; expected 1 to {capacity:,}")
        sequences = np.empty(capacity, np.int64)
        reader.read_into("sequences", sequences[:rows])
        if path.name != file_of(path.parent, key, int(sequences[0])).name:
            raise BrokenFile(f"it begins with row {sequences[0]}, other than its name says")
        dead = np.zeros(capacity, np.bool_)
        dead[:rows] = _dead(sequences[:rows], live, after)
        vectors = aligned_rows(capacity, spec.dimension, spec.storage.value)
        reader.read_into("vectors", vectors[:rows])
        ids = reader.read("ids").decode().split("\0")
        # One string for all that have none.
        attributes = [
            _EMPTY if text == _EMPTY else text for text in reader.read("attributes").decode().split("\n")
        ]
        reader.finish()
    if not len(ids) == len(attributes) == rows:
        raise BrokenFile(f"it has {len(ids)} ids and {len(attributes)} attributes of {rows} rows")
    columns = Columns(spec.attributes, capacity)
    columns.write(0, attributes)
    largest_norm = float(header["largest_norm"])
    return Segment(
        vectors, ids, attributes, columns, sequences, rows, dead, int(np.count_nonzero(dead)), largest_norm
    )


def _dead(sequences: NDArray[np.int64], live: NDArray[np.int64], after: int) -> NDArray[np.bool_]:
    if sequences[0] <= after or np.any(sequences[1:] <= sequences[:-1]):
        raise BrokenFile("its rows are in another file too, or out of order")
    start, stop = np.searchsorted(live, [sequences[0], sequences[-1] + 1])
    here = np.isin(sequences, live[start:stop], assume_unique=True)
    if np.count_nonzero(here) < stop - start:
        raise BrokenFile("it lacks rows that live between its first and its last")
    return ~here


class SegmentFiles:
    """The files of one collection. For one thread at a time."""

    def __init__(self, folder: Path, key: int) -> None:
        """
        Args:
            folder: of the files of all collections; made at the first write.
            key: the collection's.
        """
        self._folder, self._key = folder, key
        # By first sequence number: the array of the segment that was written, and its rows.
        self._written: dict[int, tuple[NDArray[np.int64], int]] = {}

    def load(
        self,
        spec: CollectionSpec,
        capacity: int,
        live: NDArray[np.int64],
        matches: Callable[[Segment, int], bool],
    ) -> Iterator[Segment]:
        """The segments that files have, in the order of writing.

        Args:
            spec: the collection's.
            capacity: rows of a segment.
            live: int64, rising: the sequence numbers of its items.
            matches: whether the record has a segment's row as the segment does.
        """
        after = 0
        for path in self._paths():
            try:
                segment = read_segment(path, self._key, spec, capacity, live, after)
                alive = np.flatnonzero(~segment.dead[: segment.used])
                if not alive.size:
                    raise BrokenFile("none of its rows lives")
                if not all(matches(segment, int(row)) for row in alive[[0, -1]]):
                    raise BrokenFile("the record has another item under the same number")
            except (BrokenFile, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("segment_file_left_out", path=str(path), reason=str(error))
                path.unlink(missing_ok=True)
                continue
            after = int(segment.sequences[segment.used - 1])
            self._written[int(segment.sequences[0])] = segment.sequences, segment.used
            yield segment

    def update(self, segments: Sequence[Segment], *, all_rows: bool = False, stopped: Stop) -> None:
        """Write what no file has, and remove the files of segments that were rewritten.

        Args:
            segments: the collection's, as they are now.
            all_rows: also a last segment that isn't full.
            stopped: calls it off.

        Raises:
            Stopped: it said so.
            OSError: the disk refuses.
        """
        firsts = set()
        for segment in segments:
            first = int(segment.sequences[0])
            firsts.add(first)
            growing = segment is segments[-1] and segment.used < len(segment.vectors)
            if self._has(first, segment) or (growing and not all_rows):
                continue
            if stopped():
                raise Stopped
            self._folder.mkdir(exist_ok=True)
            write_segment(self._folder, self._key, segment)
            self._written[first] = segment.sequences, segment.used
        for first in self._written.keys() - firsts:
            file_of(self._folder, self._key, first).unlink(missing_ok=True)
            del self._written[first]

    def remove(self) -> None:
        """Remove them all."""
        for path in self._paths():
            path.unlink(missing_ok=True)
        self._written = {}

    def _has(self, first: int, segment: Segment) -> bool:
        sequences, rows = self._written.get(first, (None, 0))
        return sequences is segment.sequences and rows == segment.used

    def _paths(self) -> list[Path]:
        """By first sequence number."""
        named = ((path.stem.partition("-")[2], path) for path in self._folder.glob(f"{self._key}-*.segment"))
        return [path for _, path in sorted((int(first), path) for first, path in named if first.isdigit())]


def remove_others(folder: Path, keys: Sequence[int]) -> None:
    """Remove the files of collections that aren't among these, and what a kill has left half written.

    Raises:
        OSError: they can't be removed.
    """
    remove_partial(folder)
    kept = {str(key) for key in keys}
    for path in [*folder.glob("*-*.segment"), *folder.glob("*.tier")]:
        if path.stem.partition("-")[0] not in kept:
            path.unlink(missing_ok=True)
