"""The way from a source into a collection: look, read, digest, write, some batches at a time."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fovea import Client, Collection, InvalidArgument

from service.cli.bulk.entry import MAX_IMAGE_BYTES, Entry, Unusable
from service.cli.bulk.look import Look, Rules
from service.cli.bulk.step import Broken, Step
from service.cli.bulk.stored import Stored
from service.cli.bulk.writer import Work, Writer, Written

_LOOKED_UP_AT_ONCE = 32
_IMAGES_AT_ONCE = 16
# The server embeds some batches while the next one's files are read.
_BATCHES_IN_FLIGHT = 3


class Indexing:
    """One run; what it wrote is known to the next by the items' attributes, whatever ended it."""

    def __init__(self, client: Client, collection: Collection, rules: Rules) -> None:
        """Prepare.

        Args:
            client: of the server.
            collection: as it stands before.
            rules: when an image is written.
        """
        self._look = Look(collection.attributes, rules)
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
                    work = self._look.at(entry, there.attributes if there else {})
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


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, _LOOKED_UP_AT_ONCE)):
        yield chunk
