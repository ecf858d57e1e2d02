"""The way from a source into a collection: look, read, digest, write, some batches at a time."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from fovea import Client, Collection, FoveaError, InvalidArgument

from service.cli.bulk.attributes import SHA256, contains, is_unchanged, wanted, with_own
from service.cli.bulk.entry import MAX_IMAGE_BYTES, Entry, Unusable, content_of, digest, stamp_of
from service.cli.bulk.stored import Stored
from service.cli.bulk.writer import Work, Writer, Written

_LOOKED_UP_AT_ONCE = 32
_IMAGES_AT_ONCE = 16
# The server embeds some batches while the next one's files are read.
_BATCHES_IN_FLIGHT = 3


@dataclass(frozen=True)
class Broken:
    """An image that was not indexed.

    Attributes:
        id: its item's, or where it stands.
        error: why.
    """

    id: str
    error: FoveaError


@dataclass(frozen=True)
class Step:
    """What became of some images.

    Attributes:
        embedded: by the server.
        copied: written with a vector that was there already.
        unchanged: stored as they are now, and left alone.
        broken: could not be indexed.
    """

    embedded: int = 0
    copied: int = 0
    unchanged: int = 0
    broken: tuple[Broken, ...] = ()

    @property
    def images(self) -> int:
        """How many there were."""
        return self.embedded + self.copied + self.unchanged + len(self.broken)


class Indexing:
    """One run; what it wrote is known to the next by the items' attributes, whatever ended it."""

    def __init__(self, client: Client, collection: Collection, *, checksum: bool) -> None:
        """Prepare.

        Args:
            client: of the server.
            collection: as it stands before.
            checksum: read every file, instead of trusting its size and time.
        """
        self._schema, self._checksum = collection.attributes, checksum
        self._stored = Stored(client, collection)
        self._writer = Writer(client, collection, self._stored)

    def run(self, entries: Iterable[Entry]) -> Iterator[Step]:
        """Index the entries; gives what became of them as it becomes known.

        Raises:
            FoveaError: of the server; what was given as indexed is.
        """
        under_way: deque[tuple[frozenset[str], Future[Step]]] = deque()
        pool = ThreadPoolExecutor(_BATCHES_IN_FLIGHT)
        try:
            for step, batch in self._batches(entries):
                yield step
                # Of equal images, and items, those that come later wait for those before.
                marks = frozenset(work.id for work in batch).union(
                    work.sha256 for work in batch if not self._stored.knows(work.sha256)
                )
                while len(under_way) >= _BATCHES_IN_FLIGHT or any(marks & busy for busy, _ in under_way):
                    yield under_way.popleft()[1].result()
                if batch:
                    under_way.append((marks, pool.submit(self._write, batch)))
            while under_way:
                yield under_way.popleft()[1].result()
        finally:
            self._writer.stop()
            pool.shutdown(cancel_futures=True)

    def _write(self, batch: Sequence[Work]) -> Step:
        written: Written = self._writer.write(batch)
        broken = tuple(Broken(name, error) for name, error in written.errors.items())
        return Step(written.embedded, written.copied, 0, broken)

    def _batches(self, entries: Iterable[Entry]) -> Iterator[tuple[Step, list[Work]]]:
        """What has to be written, and what became of the entries that haven't."""
        batch: list[Work] = []
        size_bytes = 0
        for some in _chunks(entries):
            broken: list[Broken] = []
            unchanged = 0
            stored = self._stored.items([entry.id for entry in some if not entry.fault])
            for entry in some:
                there = stored.get(entry.id)
                try:
                    work = self._work(entry, dict(there.attributes) if there else {})
                except Unusable as error:
                    broken.append(Broken(entry.id, InvalidArgument(str(error))))
                    continue
                if work is None:
                    unchanged += 1
                    continue
                # Of entries with one id the last is written, after the others.
                too_many_bytes = size_bytes + len(work.content) > MAX_IMAGE_BYTES
                if too_many_bytes or any(one.id == work.id for one in batch):
                    yield Step(), batch
                    batch, size_bytes = [], 0
                batch.append(work)
                size_bytes += len(work.content)
                if len(batch) >= _IMAGES_AT_ONCE:
                    yield Step(), batch
                    batch, size_bytes = [], 0
            yield Step(unchanged=unchanged, broken=tuple(broken)), []
        yield Step(), batch

    def _work(self, entry: Entry, stored: dict[str, str | int | float | bool]) -> Work | None:
        """What has to be written for an entry; None: nothing.

        Raises:
            Unusable: the image or what is said of it can't be used.
        """
        if entry.fault:
            raise Unusable(entry.fault)
        attributes = wanted(entry, self._schema)
        stamp = stamp_of(entry.place)
        if not self._checksum and is_unchanged(stored, attributes, stamp):
            return None
        content = content_of(entry.place)
        complete = with_own(attributes, sha256 := digest(content), stamp)
        if contains(stored, complete):
            return None
        if stored.get(SHA256) == sha256:  # only what is said of it is another
            self._stored.remember(sha256, entry.id)
        return Work(entry.id, content, sha256, complete)


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, _LOOKED_UP_AT_ONCE)):
        yield chunk
