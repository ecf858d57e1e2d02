"""A collection's vectors made anew by another model, beside it, until the new collection takes its name."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from service.errors import (
    CollectionBusy,
    InferenceFailed,
    InvalidImage,
    InvalidRequest,
    RequestError,
    VectorMismatch,
    shorten,
)
from service.gallery.building import new_name
from service.gallery.collections import Collections
from service.gallery.embedder import Embedder, checked
from service.gallery.image_roots import ImageRoots
from service.gallery.journal import Journal
from service.gallery.threads import IndexThreads, in_time
from service.gallery.writes import Replaced, Writes
from service.group import Priority
from service.model import Model
from service.retrieval.checks import check_item
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item
from service.retrieval.schema import AttributeType
from service.workers import WorkerPool

URI = "uri"
_PAGE_ITEMS = 4096
_BATCH_ITEMS = 32
# One batch's files are read while another's are embedded.
_BATCHES_UNDER_WAY = 2
# Writes are held back while no more than these are done anew.
_LAST_ITEMS = 32
_READ_THREADS = 2
_MAX_PENDING_READS = 64
# Errors of one item's image.
_NAMED = (InvalidRequest, InferenceFailed)
log = structlog.get_logger()


@dataclass(frozen=True)
class Progress:
    """How far it has come.

    Attributes:
        done: items looked at.
        total: items there were at the start.
        skipped: ids and errors of those left out since the last time.
        collection: the new one, once it has taken the name.
    """

    done: int
    total: int
    skipped: list[tuple[str, RequestError]] = field(default_factory=list)
    collection: CollectionInfo | None = None


class Reembedding:
    """Makes collections anew; deadlines are loop times, in seconds.

    What is written to the collection through this server meanwhile is done anew too; writes wait only while
    the last few are. Nobody else may write to it: another server of the same engine wouldn't be seen.
    """

    def __init__(
        self,
        index: Index,
        threads: IndexThreads,
        writes: Writes,
        collections: Collections,
        embedder: Embedder,
        roots: ImageRoots,
        max_batch_bytes: int,
    ) -> None:
        self._index, self._threads, self._writes = index, threads, writes
        self._collections, self._embedder, self._roots = collections, embedder, roots
        self._max_batch_bytes = max_batch_bytes
        self._readers = WorkerPool("image", _READ_THREADS, _MAX_PENDING_READS)

    def close(self, timeout_s: float) -> bool:
        """End the threads that read images; whether they ended within the time."""
        return self._readers.close(timeout_s)

    async def run(
        self, collection: str, model_name: str, version: str, deadline: float, *, skip_broken: bool
    ) -> AsyncGenerator[Progress, None]:
        """Make a collection's vectors anew; if it ends before its last value, the collection is as it was.

        Args:
            collection: which; it declares the attribute `uri`, a string: where an item's image is.
            model_name: makes the vectors; empty: the default model.
            version: of the model; empty: the loaded one.
            deadline: loop time, in seconds.
            skip_broken: leave out the items whose image can't be used; else the first such ends it.

        Raises:
            NotConfigured: the server opens no image files.
            CollectionBusy: it is being made anew already, or was dropped or replaced meanwhile.
            VectorMismatch: the collection doesn't declare `uri`.
            InvalidImage, InferenceFailed: of an item's image; names the item.
            Overloaded: more was written meanwhile than can be remembered.
            CollectionNotFound, ModelNotFound, InvalidRequest, Unavailable, DeadlineExpired.
        """
        self._roots.check_configured()
        generation = self._writes.generation(collection)
        info = await self._collections.describe(collection, deadline)
        _check_schema(info.spec)
        model = self._embedder.model_named(model_name, version)
        building = new_name()
        spec = replace(
            info.spec,
            name=building,
            dimension=model.manifest.embedding_dimension,
            fingerprint=model.fingerprint,
        )
        with self._writes.watched(collection) as journal:
            try:
                await self._writes.create(spec, deadline)
                yield Progress(0, info.count)
                copy = _Copy(self, collection, spec, model, deadline, skip_broken)
                done = 0
                async with aclosing(copy.all(journal)) as batches:
                    async for batch in batches:
                        done += batch.items
                        yield Progress(done, max(done, info.count), batch.skipped)
                while len(journal) > _LAST_ITEMS:
                    yield Progress(done, max(done, info.count), await copy.again(journal))
                async with self._writes.held_back(collection, deadline):
                    skipped = await copy.again(journal)
                    await self._writes.replace(collection, building, deadline, generation=generation)
            except Replaced:
                raise CollectionBusy(
                    f"collection {shorten(collection)} was dropped or replaced while it was being made anew"
                ) from None
            finally:
                # It isn't there any more where it has taken its place.
                self._writes.drop_later(building)
        log.info(
            "collection_reembedded",
            collection=collection,
            items=done,
            model=model.manifest.name,
            version=model.manifest.version,
        )
        made = await self._collections.describe(collection, deadline)
        yield Progress(done, max(done, info.count), skipped, made)


@dataclass(frozen=True)
class _Batch:
    items: int
    skipped: list[tuple[str, RequestError]]


class _Copy:
    """Fills one new collection."""

    def __init__(
        self,
        house: Reembedding,
        collection: str,
        spec: CollectionSpec,
        model: Model,
        deadline: float,
        skip_broken: bool,
    ) -> None:
        self._index, self._threads = house._index, house._threads
        self._embedder, self._roots, self._readers = house._embedder, house._roots, house._readers
        self._max_batch_bytes = house._max_batch_bytes
        self._collection, self._spec, self._model = collection, spec, model
        self._deadline, self._skip_broken = deadline, skip_broken

    async def all(self, journal: Journal) -> AsyncGenerator[_Batch, None]:
        """Each item once, as it stands when its page is read; what is written then is in the journal."""
        after = ""
        while True:
            journal.reading()
            page = await self._threads.read(partial(self._page, after), self._deadline)
            if not page:
                return
            after = page[-1].id
            journal.read_up_to(after)
            async with aclosing(self._batches(page)) as batches:
                async for batch in batches:
                    yield batch
            if len(journal) > _PAGE_ITEMS:
                yield _Batch(0, await self.again(journal))

    async def again(self, journal: Journal) -> list[tuple[str, RequestError]]:
        """What the journal has, done as it stands now; gives the items that were left out."""
        filters, ids = journal.take()
        building, skipped = self._spec.name, []
        for condition in filters:
            delete = partial(self._index.delete_matching, building, condition)
            await self._threads.write(delete, self._deadline)
        for start in range(0, len(ids), _PAGE_ITEMS):
            part = ids[start : start + _PAGE_ITEMS]
            get = partial(self._index.get, self._collection, part, include_vectors=False)
            items = await self._threads.read(get, self._deadline)
            async with aclosing(self._batches(items)) as batches:
                async for batch in batches:
                    skipped += batch.skipped
            there = {item.id for item in items} - {name for name, _ in skipped}
            gone = [name for name in part if name not in there]
            if gone:
                await self._threads.write(partial(self._index.delete, building, gone), self._deadline)
        return skipped

    async def _batches(self, items: Sequence[Item]) -> AsyncGenerator[_Batch, None]:
        under_way: deque[asyncio.Task[_Batch]] = deque()
        try:
            start = 0
            while start < len(items):
                part = items[start : start + _BATCH_ITEMS]
                uris = [_uri(item) for item in part]
                images = await in_time(
                    self._readers.run(partial(self._roots.read_some, uris, self._max_batch_bytes)),
                    self._deadline,
                    "the deadline passed while image files were read",
                )
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

    async def _renew(self, items: Sequence[Item], images: Sequence[bytes | RequestError]) -> _Batch:
        good = [image for image in images if isinstance(image, bytes)]
        vectors = iter(
            await self._embedder.embed(self._model, good, self._deadline, Priority.BULK, patient=True)
            if good
            else []
        )
        renewed: list[Item | RequestError] = []
        for item, image in zip(items, images, strict=True):
            vector = next(vectors) if isinstance(image, bytes) else image
            renewed.append(
                vector if isinstance(vector, RequestError) else Item(item.id, vector, item.attributes)
            )
        check = partial(checked, partial(check_item, self._spec), renewed)
        renewed = await self._threads.read(check, self._deadline)
        skipped = [
            (item.id, result)
            for item, result in zip(items, renewed, strict=True)
            if isinstance(result, RequestError)
        ]
        good_items = [result for result in renewed if isinstance(result, Item)]
        for name, error in skipped:
            # Where a whole batch fails to run it is rather the machine: no item is left out for that.
            of_image = isinstance(error, InferenceFailed) and good_items
            if not (self._skip_broken and (of_image or isinstance(error, InvalidRequest))):
                raise (
                    error if not isinstance(error, _NAMED) else type(error)(f"item {shorten(name)}: {error}")
                )
        if good_items:
            upsert = partial(self._index.upsert, self._spec.name, good_items)
            await self._threads.write(upsert, self._deadline)
        return _Batch(len(items), skipped)

    def _page(self, after: str) -> list[Item]:
        return self._index.scan(
            self._collection,
            after=after,
            limit=_PAGE_ITEMS,
            include_vectors=False,
            max_reply_bytes=self._max_batch_bytes,
        )


def _check_schema(spec: CollectionSpec) -> None:
    declared = spec.attributes.get(URI)
    if declared is not AttributeType.STRING:
        found = f"declares it as {declared.value}" if declared else "doesn't declare it"
        raise VectorMismatch(
            f"collection {spec.name} can't be made anew from its images: these are named by the attribute "
            f"{URI!r}, a string, and the collection {found}"
        )


def _uri(item: Item) -> str | RequestError:
    uri = item.attributes.get(URI)
    if isinstance(uri, str):
        return uri
    return InvalidImage(f"it has no attribute {URI!r}; expected where its image is")
