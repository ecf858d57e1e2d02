"""One collection filled with another's items, while these are written to."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from service.errors import InferenceFailed, InvalidImage, InvalidRequest, RequestError, shorten
from service.gallery.embedder import Embedder, checked
from service.gallery.journal import Journal
from service.gallery.threads import IndexThreads
from service.group import Priority
from service.model import Model
from service.retrieval.checks import check_item
from service.retrieval.index import CollectionSpec, Index, Item

URI = "uri"
"""The attribute that says where an item's image is."""
_PAGE_ITEMS = 4096
_PAGE_BYTES = 16 * 1024 * 1024
# Their attributes take 16 MiB at most.
_AGAIN_ITEMS = 256
# One batch's files are read while another's are embedded.
_BATCHES_UNDER_WAY = 2
# Errors of one item's image.
_NAMED = (InvalidRequest, InferenceFailed)


@dataclass(frozen=True)
class Batch:
    """Some items that were looked at.

    Attributes:
        items: how many.
        skipped: ids and errors of those that were left out.
    """

    items: int
    skipped: list[tuple[str, RequestError]]


@dataclass(frozen=True)
class Renewal:
    """Fills a new collection with the items of another, their vectors made anew from their images.

    Attributes:
        index: has both.
        threads: call it.
        embedder: makes the vectors.
        read_images: files' names, or errors in their place → their contents or errors, of the first ones at
            least; as `ImageRoots.read_some`.
        source: the collection whose items they are.
        spec: of the new one.
        model: makes its vectors.
        deadline: loop time, in seconds.
        skip_broken: leave out the items whose image can't be used; else the first such ends it.
        batch_items: how many images are embedded together at most.
    """

    index: Index
    threads: IndexThreads
    embedder: Embedder
    read_images: Callable[[Sequence[str | RequestError]], Awaitable[list[bytes | RequestError]]]
    source: str
    spec: CollectionSpec
    model: Model
    deadline: float
    skip_broken: bool
    batch_items: int

    async def all(self, journal: Journal) -> AsyncGenerator[Batch, None]:
        """Each item once, as it stands when its page is read; what is written then is in the journal."""
        after = ""
        while True:
            journal.reading()
            page = await self.threads.read(partial(self._page, after), self.deadline, patient=True)
            if not page:
                return
            after = page[-1].id
            journal.read_up_to(after)
            async with aclosing(self._batches(page)) as batches:
                async for batch in batches:
                    yield batch
            if len(journal) > _PAGE_ITEMS:
                yield Batch(0, await self.again(journal))

    async def again(self, journal: Journal) -> list[tuple[str, RequestError]]:
        """What the journal has, done as it stands now; gives the items that were left out."""
        filters, ids = journal.take()
        building, skipped = self.spec.name, []
        for condition in filters:
            delete = partial(self.index.delete_matching, building, condition)
            await self.threads.write(delete, self.deadline, patient=True)
        for start in range(0, len(ids), _AGAIN_ITEMS):
            part = ids[start : start + _AGAIN_ITEMS]
            get = partial(self.index.get, self.source, part, include_vectors=False)
            items = await self.threads.read(get, self.deadline, patient=True)
            async with aclosing(self._batches(items)) as batches:
                async for batch in batches:
                    skipped += batch.skipped
            there = {item.id for item in items} - {name for name, _ in skipped}
            gone = [name for name in part if name not in there]
            if gone:
                await self.threads.write(
                    partial(self.index.delete, building, gone), self.deadline, patient=True
                )
        return skipped

    async def _batches(self, items: Sequence[Item]) -> AsyncGenerator[Batch, None]:
        under_way: deque[asyncio.Task[Batch]] = deque()
        try:
            start = 0
            while start < len(items):
                part = items[start : start + self.batch_items]
                uris = [_uri(item) for item in part]
                images = await self.read_images(uris)
                part = part[: len(images)]
                start += len(part)
                under_way.append(asyncio.create_task(self._renew(part, images)))
                if len(under_way) >= _BATCHES_UNDER_WAY:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _renew(self, items: Sequence[Item], images: Sequence[bytes | RequestError]) -> Batch:
        good = [image for image in images if isinstance(image, bytes)]
        vectors = iter(
            await self.embedder.embed(self.model, good, self.deadline, Priority.BULK, patient=True)
            if good
            else []
        )
        renewed: list[Item | RequestError] = []
        for item, image in zip(items, images, strict=True):
            vector = next(vectors) if isinstance(image, bytes) else image
            renewed.append(
                vector if isinstance(vector, RequestError) else Item(item.id, vector, item.attributes)
            )
        check = partial(checked, partial(check_item, self.spec), renewed)
        renewed = await self.threads.read(check, self.deadline, patient=True)
        skipped = [
            (item.id, result)
            for item, result in zip(items, renewed, strict=True)
            if isinstance(result, RequestError)
        ]
        good_items = [result for result in renewed if isinstance(result, Item)]
        for name, error in skipped:
            # Where a whole batch fails to run it is rather the machine: no item is left out for that.
            of_image = isinstance(error, InferenceFailed) and good_items
            if not (self.skip_broken and (of_image or isinstance(error, InvalidRequest))):
                raise (
                    error if not isinstance(error, _NAMED) else type(error)(f"item {shorten(name)}: {error}")
                )
        if good_items:
            upsert = partial(self.index.upsert, self.spec.name, good_items)
            await self.threads.write(upsert, self.deadline, patient=True)
        return Batch(len(items), skipped)

    def _page(self, after: str) -> list[Item]:
        return self.index.scan(
            self.source,
            after=after,
            limit=_PAGE_ITEMS,
            include_vectors=False,
            max_reply_bytes=_PAGE_BYTES,
        )


def _uri(item: Item) -> str | RequestError:
    uri = item.attributes.get(URI)
    if isinstance(uri, str):
        return uri
    return InvalidImage(f"it has no attribute {URI!r}; expected where its image is")
