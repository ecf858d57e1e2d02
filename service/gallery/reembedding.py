"""A collection's vectors made anew by another model, beside it, until the new collection takes its name."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from service.config import Config
from service.errors import CollectionBusy, Overloaded, RequestError, VectorMismatch, shorten
from service.gallery.building import new_name
from service.gallery.collections import Collections
from service.gallery.embedder import Embedder
from service.gallery.image_roots import ImageRoots
from service.gallery.renewal import URI, Renewal
from service.gallery.threads import IndexThreads, in_time
from service.gallery.writes import Replaced, Writes
from service.retrieval.index import CollectionInfo, CollectionSpec, Index
from service.retrieval.schema import AttributeType
from service.workers import WorkerPool

_BATCH_ITEMS = 32
# Writes are held back while no more than these are done anew.
_LAST_ITEMS = 32
_READ_THREADS = 2
_MAX_PENDING_READS = 64
# Each has two batches of images in memory.
_MOST_AT_A_TIME = 4
_RETRY_AFTER_MS = 60_000.0
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
        config: Config,
    ) -> None:
        """Look whether the folders of images are there, and start the threads that read them.

        Raises:
            ConfigError: one isn't a folder.
        """
        # A batch waits for room among the images that are in, of which it may have half.
        most_bytes = config.max_queued_bytes // 2
        max_image_bytes = min(config.max_image_bytes, most_bytes)
        self._roots = ImageRoots(config.image_roots, max_image_bytes)
        self._batch_items = min(_BATCH_ITEMS, config.max_images_per_request)
        # Reached by one image more than fits below it.
        self._batch_bytes = max(0, min(config.max_message_bytes, most_bytes - max_image_bytes))
        self._index, self._threads, self._writes = index, threads, writes
        self._collections, self._embedder = collections, embedder
        self._under_way = 0
        self._readers = WorkerPool("image", _READ_THREADS, _MAX_PENDING_READS)

    def close(self, timeout_s: float) -> bool:
        """End the threads that read images; whether they ended within the time."""
        return self._readers.close(timeout_s)

    async def _read_images(
        self, deadline: float, uris: Sequence[str | RequestError]
    ) -> list[bytes | RequestError]:
        return await in_time(
            self._readers.run(partial(self._roots.read_some, uris, self._batch_bytes)),
            deadline,
            "the deadline passed while image files were read",
        )

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
        if self._under_way >= _MOST_AT_A_TIME:
            raise Overloaded(
                f"{self._under_way} collections are being made anew; expected at most {_MOST_AT_A_TIME} at a "
                "time: try again later",
                _RETRY_AFTER_MS,
            )
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
            self._under_way += 1
            try:
                await self._writes.create(spec, deadline)
                yield Progress(0, info.count)
                copy = Renewal(
                    self._index,
                    self._threads,
                    self._embedder,
                    partial(self._read_images, deadline),
                    collection,
                    spec,
                    model,
                    deadline,
                    skip_broken,
                    self._batch_items,
                )
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
                self._under_way -= 1
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


def _check_schema(spec: CollectionSpec) -> None:
    declared = spec.attributes.get(URI)
    if declared is not AttributeType.STRING:
        found = f"declares it as {declared.value}" if declared else "doesn't declare it"
        raise VectorMismatch(
            f"collection {spec.name} can't be made anew from its images: these are named by the attribute "
            f"{URI!r}, a string, and the collection {found}"
        )
