"""What is derived from a collection's rows and made in the background: its 1-bit tier, and the files of both.

Searches go on with the tier there is; a new one takes over by one assignment.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import structlog

from service.retrieval.index import CollectionSpec
from service.retrieval.margins import MIN_ROWS
from service.retrieval.own_pages import trim
from service.retrieval.segment_files import SegmentFiles
from service.retrieval.segments import Segment, Segments
from service.retrieval.signs import SignCoder
from service.retrieval.stopping import Stop, Stopped
from service.retrieval.tier import MAX_DIMENSION, Tier, renewed
from service.retrieval.tier_file import read_tier, tier_file_of, write_tier

log = structlog.get_logger()
# Rows that came since the tier was made are compared exactly: a new tier is made when they are more than
# this, and than this share of all.
_UNCOVERED_ROWS, _UNCOVERED_SHARE = 1024, 1 / 64
# A tier that didn't pay is tried again when the collection has grown this much.
_GROWTH = 4
# The file of a tier is written again when this share of its rows is new.
_FILE_SHARE = 1 / 4
MIN_TIER_ROWS_ALLOWED = MIN_ROWS


@dataclass(frozen=True, eq=False)
class _Written:
    """What of a tier is in its file: the tier itself would be held on to for nothing else."""

    coder: SignCoder
    rows: int
    last: int

    @classmethod
    def of(cls, tier: Tier) -> Self:
        return cls(tier.coder, len(tier.codes), int(tier.sequences[-1]))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Written)
            and self.coder is other.coder
            and (self.rows, self.last) == (other.rows, other.last)
        )


class Upkeep:
    """One collection's.

    Attributes:
        tier: by which to search; None: compare everything.
        spec: the collection's; the index sets another one where the name changes.
        files: of its segments.
        retired: the collection is gone.
    """

    def __init__(
        self, folder: Path, key: int, spec: CollectionSpec, segments: Segments, min_tier_rows: int
    ) -> None:
        """
        Args:
            folder: of the files of all collections.
            key: the collection's.
            spec: likewise, as it is now.
            segments: its rows.
            min_tier_rows: with fewer it has no tier.
        """
        self.tier: Tier | None = None
        self.files = SegmentFiles(folder, key)
        self.retired = False
        self.spec = spec
        self._folder, self._key, self._segments = folder, key, segments
        self._min_rows = self._retry_rows = min_tier_rows
        self._base: Tier | None = None  # read from its file
        self._written: _Written | None = None  # of the tier's file
        self._working = threading.Lock()

    def load_tier(self) -> None:
        """Take the tier from its file; if it lacks much, that is made by the next run."""
        if len(self._segments) < self._min_rows:
            return
        tier = read_tier(self._folder, self._key, self.spec)
        if tier is None or not len(tier.sequences):
            return
        self._base, self._written = tier, _Written.of(tier)
        segments, last = self._segments.view(), tier.sequences[-1]
        new = sum(int(np.count_nonzero(segment.sequences[: segment.used] > last)) for segment in segments)
        if new <= _UNCOVERED_ROWS:
            self.tier, self._base = renewed(tier, segments, self.spec.metric, quick=True), None

    def run(self, stopped: Stop, *, thorough: bool = False) -> None:
        """Bring tier and files up to date.

        Args:
            stopped: calls it off.
            thorough: leave nothing to the next run, however little it is.

        Raises:
            Stopped: it was called off.
            OSError: the files can't be written; the tier is up to date.
        """
        with self._working:
            if self.retired:
                self.files.remove()
                tier_file_of(self._folder, self._key).unlink(missing_ok=True)
                return
            self._renew_tier(lambda: stopped() or self.retired, thorough=thorough)
            self.files.update(self._segments.view(), all_rows=thorough, stopped=stopped)
            self._write_tier(thorough=thorough)

    def _renew_tier(self, stopped: Stop, *, thorough: bool) -> None:
        segments = self._segments.view()
        live = sum(segment.live_count for segment in segments)
        if not self._due(segments, live, thorough=thorough):
            if live < self._min_rows // 2:  # half: not to and fro with each write
                self.tier = self._base = None
            return
        started = time.monotonic()
        before = self.tier or self._base
        tier = renewed(before, segments, self.spec.metric, stopped)
        self._base = None
        if not tier.useful:
            self._retry_rows = _GROWTH * live
        if before is None or self.tier is None or tier.coder is not before.coder or not tier.useful:
            log.info(
                "search_tier_made",
                collection=self.spec.name,
                index_type="1-bit" if tier.useful else "flat",
                items=live,
                scored_share=round(tier.margins.scored_share, 4),
                seconds=round(time.monotonic() - started, 3),
            )
        self.tier = tier if tier.useful else None
        del before, tier
        trim()

    def _due(self, segments: Sequence[Segment], live: int, *, thorough: bool) -> bool:
        if self.spec.dimension > MAX_DIMENSION or live < self._min_rows // 2:
            return False
        if self.tier is None:
            return live >= (self._min_rows if self._base else self._retry_rows)
        allowed = 0 if thorough else max(_UNCOVERED_ROWS, _UNCOVERED_SHARE * live)
        return self.tier.outgrown(live) or self.tier.uncovered(segments) > allowed

    def _write_tier(self, *, thorough: bool) -> None:
        tier, written = self.tier, self._written
        if tier is None:
            if written is not None:
                tier_file_of(self._folder, self._key).unlink(missing_ok=True)
                self._written = None
            return
        same_coder = written is not None and written.coder is tier.coder
        new = len(tier.codes) - (written.rows if written is not None and same_coder else 0)
        if _Written.of(tier) != written and (thorough or new > _FILE_SHARE * len(tier.codes)):
            write_tier(self._folder, self._key, self.spec, tier)
            self._written = _Written.of(tier)

    def save(self, stopped: Stop) -> None:
        """Write the files as they are to be at the next start; no tier is made.

        Raises:
            Stopped: it was called off.
            OSError: the disk refuses.
        """
        with self._working:
            self.files.update(self._segments.view(), all_rows=True, stopped=stopped)
            self._write_tier(thorough=True)


def save_all(upkeeps: Iterable[Upkeep], stopped: Stop) -> None:
    """Write the files of all; what can't be written is told in the log, and made again at the next start."""
    for upkeep in upkeeps:
        try:
            if upkeep.retired:
                upkeep.run(stopped)
            else:
                upkeep.save(stopped)
        except (Stopped, OSError) as error:
            log.warning("index_files_not_written", reason=repr(error))
