"""Brings a collection into memory: from the files of its segments, and the rest from the record."""

import time
from functools import partial

import structlog

from service.retrieval.index import CollectionSpec
from service.retrieval.record import Record
from service.retrieval.segment_files import SegmentFiles
from service.retrieval.segments import Segment, Segments

log = structlog.get_logger()
_PROGRESS_S = 1.0


def load(record: Record, files: SegmentFiles, key: int, spec: CollectionSpec, segments: Segments) -> None:
    """Fill the empty segments of a collection.

    Raises:
        IndexUnusable: the record is broken.
    """
    live = record.sequences(key)

    def matches(segment: Segment, row: int) -> bool:
        sequence = int(segment.sequences[row])
        return record.holds(key, spec, sequence, segment.ids[row], segment.vectors[row])

    progress = _Progress(spec.name, len(live))
    read = partial(_read, record, key, spec, segments, progress)
    last = 0
    for segment in files.load(spec, segments.capacity, live, matches):
        read(last, int(segment.sequences[0]))
        segments.adopt(segment)
        progress.total -= segment.live_count
        last = int(segment.sequences[segment.used - 1])
    read(last, 2**63 - 1)
    progress.end()


def _read(
    record: Record,
    key: int,
    spec: CollectionSpec,
    segments: Segments,
    progress: "_Progress",
    after: int,
    before: int,
) -> None:
    for batch, sequences in record.read(key, spec, after, before):
        segments.publish(segments.prepare(batch, sequences=sequences))
        progress.add(len(batch.ids))


class _Progress:
    """A line a second while rows are read that no file had."""

    def __init__(self, name: str, total: int) -> None:
        self.total = total
        self._name, self._done = name, 0
        self._started = self._told = time.monotonic()

    def add(self, rows: int) -> None:
        """So many more were read."""
        self._done += rows
        if time.monotonic() - self._told >= _PROGRESS_S:
            self._tell("rebuilding_from_record")

    def end(self) -> None:
        """All were."""
        if self._done:
            self._tell("rebuilt_from_record")

    def _tell(self, event: str) -> None:
        self._told = time.monotonic()
        seconds = round(self._told - self._started, 3)
        log.info(event, collection=self._name, items=self._done, of=self.total, seconds=seconds)
