"""Items of collections: written, deleted, read, counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from service.errors import RequestError, Unavailable
from service.gallery.building import check_visible
from service.gallery.checking import checked_together
from service.gallery.collections import Collections
from service.gallery.embedder import Embedder, Source, check_fingerprint, log_errors
from service.gallery.threads import IndexThreads
from service.gallery.writes import Replaced, Writes
from service.group import Priority
from service.model import Model
from service.retrieval.checks import pack_items
from service.retrieval.filters import Filter
from service.retrieval.index import Index, Item
from service.retrieval.schema import AttributeValue

# A collection is replaced once in a long while; a second time within one request is no accident.
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class NewItem:
    """An item to write.

    Attributes:
        id: the caller's own.
        source: an image, which the collection's model embeds, a float32 [dimension] vector, or the error
            that the item had already.
        attributes: stored beside it.
    """

    id: str
    source: Source
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Prepared:
    """A request's items, ready to be written.

    Attributes:
        collection: where.
        generation: of the collection that the vectors were made for.
        items: each one, or its error, in the request's order.
        model: that embedded the images, if there were any.
    """

    collection: str
    generation: int
    items: list[Item | RequestError]
    model: Model | None


@dataclass(frozen=True)
class Written:
    """What became of a request's items.

    Attributes:
        errors: of each that wasn't written; None for those that are on the disk.
        model: that embedded the images, if there were any.
    """

    errors: list[RequestError | None]
    model: Model | None


class Items:
    """What the retrieval service does with items; deadlines are loop times, in seconds.

    How many items or ids come is for the caller to bound, before it makes them.
    All methods raise CollectionNotFound, DeadlineExpired and Overloaded.
    """

    def __init__(
        self,
        index: Index,
        threads: IndexThreads,
        writes: Writes,
        collections: Collections,
        embedder: Embedder,
        max_reply_bytes: int,
    ) -> None:
        self._index, self._threads, self._writes = index, threads, writes
        self._collections, self._embedder = collections, embedder
        self._max_reply_bytes = max_reply_bytes

    async def upsert(
        self,
        collection: str,
        items: Sequence[NewItem],
        fingerprint: str,
        deadline: float,
        *,
        patient: bool = False,
    ) -> Written:
        """Write items, replacing those of the same id.

        Args:
            collection: where.
            items: what.
            fingerprint: of the vectors; empty: not stated.
            deadline: loop time, in seconds.
            patient: wait where there is no room, instead of being refused.

        Raises:
            VectorMismatch: `fingerprint` isn't the collection's, or images are for a model that isn't loaded.
        """
        for _ in range(MAX_ATTEMPTS):
            prepared = await self.prepare(collection, items, fingerprint, deadline, patient=patient)
            try:
                return await self.commit(prepared, deadline, patient=patient)
            except Replaced:
                continue
        raise Unavailable(
            f"collection {collection} was replaced {MAX_ATTEMPTS} times meanwhile; try again later"
        )

    async def prepare(
        self,
        collection: str,
        items: Sequence[NewItem],
        fingerprint: str,
        deadline: float,
        *,
        patient: bool = False,
    ) -> Prepared:
        """Check items and embed their images; arguments and errors as in `upsert`."""
        generation = self._writes.generation(collection)  # before the look at what it takes
        spec = (await self._collections.describe(collection, deadline, patient=patient)).spec
        check_fingerprint(spec, fingerprint)
        sources = [item.source for item in items]
        vectors, model = await self._embedder.vectors(spec, sources, deadline, Priority.BULK, patient=patient)
        candidates = [
            vector if isinstance(vector, RequestError) else Item(item.id, vector, item.attributes)
            for item, vector in zip(items, vectors, strict=True)
        ]
        check = partial(checked_together, partial(pack_items, spec), candidates)
        results = await self._threads.read(check, deadline, patient=patient)
        return Prepared(collection, generation, results, model)

    async def commit(
        self,
        prepared: Prepared,
        deadline: float,
        *,
        patient: bool = False,
        on_turn: Callable[[], None] = lambda: None,
    ) -> Written:
        """Write what was prepared.

        Args:
            prepared: what.
            deadline: loop time, in seconds.
            patient: as in `upsert`.
            on_turn: called as soon as it has its turn: what is committed later is written later.

        Raises:
            Replaced: the collection isn't the one that it was prepared for.
        """
        good = [item for item in prepared.items if isinstance(item, Item)]
        if good:
            await self._writes.upsert(
                prepared.collection,
                good,
                deadline,
                generation=prepared.generation,
                patient=patient,
                on_turn=on_turn,
            )
        errors = [item if isinstance(item, RequestError) else None for item in prepared.items]
        log_errors("items_failed", prepared.collection, errors)
        return Written(errors, prepared.model)

    async def delete(self, collection: str, ids: Sequence[str], deadline: float) -> int:
        """Remove items by id; gives how many were there."""
        check_visible(collection)
        return await self._writes.write(
            collection, lambda: self._index.delete(collection, ids), deadline, ids=ids
        )

    async def delete_matching(self, collection: str, condition: Filter, deadline: float) -> int:
        """Remove the items that a filter keeps; gives how many.

        Raises:
            InvalidRequest: a filter that the collection can't answer.
        """
        check_visible(collection)
        return await self._writes.write(
            collection,
            lambda: self._index.delete_matching(collection, condition),
            deadline,
            condition=condition,
        )

    async def get(
        self, collection: str, ids: Sequence[str], deadline: float, *, include_vectors: bool
    ) -> list[Item]:
        """The items that are there, in the order asked for; without `include_vectors` theirs are [0].

        Raises:
            InvalidRequest: the items are larger than a message may be.
        """
        check_visible(collection)
        read = partial(
            self._index.get,
            collection,
            ids,
            include_vectors=include_vectors,
            max_reply_bytes=self._max_reply_bytes,
        )
        return await self._threads.read(read, deadline)

    async def count(self, collection: str, condition: Filter | None, deadline: float) -> int:
        """How many items the collection has, or of them a filter keeps.

        Raises:
            InvalidRequest: a filter that the collection can't answer.
        """
        check_visible(collection)
        return await self._threads.read(lambda: self._index.count(collection, condition), deadline)

    async def scan(
        self,
        collection: str,
        after: str,
        limit: int,
        condition: Filter | None,
        deadline: float,
        *,
        include_vectors: bool,
    ) -> tuple[list[Item], bool]:
        """A page of the items in the order of their ids, and whether there are more after it.

        Args:
            collection: where.
            after: the last id of the page before; empty: from the first.
            limit: at most so many; fewer where a message can't hold them, but one at least.
            condition: only items that it keeps.
            deadline: loop time, in seconds.
            include_vectors: else theirs are [0].

        Raises:
            InvalidRequest: a filter that the collection can't answer.
        """
        check_visible(collection)

        def read() -> tuple[list[Item], bool]:
            scan = partial(self._index.scan, collection, condition=condition)
            # One more tells whether there are more.
            items = scan(
                after=after,
                limit=limit + 1,
                include_vectors=include_vectors,
                max_reply_bytes=self._max_reply_bytes,
            )
            if len(items) > limit:
                return items[:limit], True
            # Either there are no more, or they didn't fit.
            return items, bool(items and scan(after=items[-1].id, limit=1, include_vectors=False))

        return await self._threads.read(read, deadline)
