"""The one door of all writes to collections: they can be watched, held back, and told of a replacement."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import structlog

from service.errors import (
    CollectionBusy,
    CollectionNotFound,
    DeadlineExpired,
    FoveaError,
    Overloaded,
    shorten,
)
from service.gallery.group_commit import Entry, GroupCommit
from service.gallery.journal import Journal
from service.gallery.threads import IndexThreads, in_time
from service.retrieval.filters import Filter
from service.retrieval.index import CollectionSpec, Index, Item

T = TypeVar("T")
# The next start drops what isn't dropped in this time.
_DROP_S = 300.0
_REPLACE_S = 60.0
log = structlog.get_logger()


class Replaced(Exception):
    """The collection isn't the one any more for which the vectors were made; make them again."""


class Writes:
    """Writes to collections, one at a time; deadlines are loop times, in seconds.

    A collection's generation changes when another one takes its name.
    """

    def __init__(self, index: Index, threads: IndexThreads) -> None:
        self._index, self._threads = index, threads
        self._journals: dict[str, Journal] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._numbers = itertools.count(1)
        self._generations: dict[str, int] = {}
        self._groups: dict[str, GroupCommit] = {}
        self._drops: set[asyncio.Task[None]] = set()

    def generation(self, collection: str) -> int:
        """Which of those that had the name so far it is."""
        return self._generations.get(collection, 0)

    async def write(
        self,
        collection: str,
        call: Callable[[], T],
        deadline: float,
        *,
        ids: Sequence[str] = (),
        condition: Filter | None = None,
        patient: bool = False,
    ) -> T:
        """What `call` gives, which writes to a collection.

        Args:
            collection: where.
            call: made in the thread that writes.
            deadline: it isn't begun after it.
            ids: what it writes or deletes.
            condition: what it deletes by.
            patient: wait while too many writes wait already, instead of being refused.
        """

        def write() -> T:
            try:
                return call()
            finally:
                self._note(collection, ids, condition)

        await self._pass_gate(collection, deadline)
        return await self._threads.write(write, deadline, patient=patient)

    async def upsert(
        self,
        collection: str,
        items: Sequence[Item],
        deadline: float,
        *,
        generation: int,
        patient: bool = False,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Write items, together with those of others that wait at the same time.

        Args:
            collection: where.
            items: checked already.
            deadline: it isn't begun after it.
            generation: for which the vectors were made.
            patient: as for `write`.
            on_turn: called as soon as they have their turn: what asks later is written later.

        Raises:
            Replaced: the collection has another generation.
        """

        def check() -> None:
            if generation != self.generation(collection):
                raise Replaced

        while True:
            await self._pass_gate(collection, deadline)
            entry = Entry(items, check, deadline, asyncio.get_running_loop().create_future())
            try:
                self._group(collection).add(entry)
                break
            except Overloaded as error:
                if not patient:
                    raise
                wait_s = error.retry_after_ms / 1000
                await in_time(asyncio.sleep(wait_s), deadline, "the deadline passed before the write began")
        on_turn()
        await in_time(
            entry.written,
            deadline,
            "the deadline passed before the write was acknowledged; it may be done all the same",
        )

    def _group(self, collection: str) -> GroupCommit:
        group = self._groups.get(collection)
        if group is None:

            def write(items: Sequence[Item]) -> None:
                try:
                    self._index.upsert(collection, items)
                finally:
                    self._note(collection, [item.id for item in items])

            group = self._groups[collection] = GroupCommit(write, self._threads.submit_write)
        return group

    def _note(self, collection: str, ids: Sequence[str], condition: Filter | None = None) -> None:
        """After a write, also when it failed: what it did then is open."""
        journal = self._journals.get(collection)
        if journal is not None:
            journal.note(ids, condition)

    async def _pass_gate(self, collection: str, deadline: float) -> None:
        while gate := self._gates.get(collection):
            await in_time(
                gate.wait(), deadline, "the deadline passed while the collection was being replaced"
            )

    async def create(self, spec: CollectionSpec, deadline: float) -> None:
        """Make an empty collection."""

        def create() -> None:
            self._index.create(spec)
            self._renew(spec.name)

        await self.write(spec.name, create, deadline)

    async def drop(self, collection: str, deadline: float, *, patient: bool = False) -> None:
        """Remove a collection and its items."""

        def drop() -> None:
            self._index.drop(collection)
            self._generations.pop(collection, None)

        await self.write(collection, drop, deadline, patient=patient)
        self._groups.pop(collection, None)

    async def rename(self, collection: str, name: str, deadline: float) -> None:
        """Let a collection take a free name."""

        def rename() -> None:
            self._index.rename(collection, name)
            self._renew(name)

        await self.write(name, rename, deadline, patient=True)

    async def replace(self, collection: str, by: str, deadline: float, *, generation: int) -> None:
        """Let the collection `by` take the name; only while they are held back.

        Raises:
            Replaced: as `write`.
        """

        def replace() -> None:
            if generation != self.generation(collection):
                raise Replaced
            # Twice: whoever looks in between finds the old collection, and the new one when it comes back.
            self._renew(collection)
            self._index.replace(collection, by)
            self._renew(collection)

        if asyncio.get_running_loop().time() >= deadline:
            raise DeadlineExpired("the deadline passed before the collection was replaced; it is as it was")
        # Its own time: whether a step that was begun is done is not to be left open.
        await self._threads.write(replace, asyncio.get_running_loop().time() + _REPLACE_S, patient=True)

    def drop_later(self, building: str) -> None:
        """Drop a collection that was being built, whether or not its builder still runs."""

        async def drop() -> None:
            try:
                await self.drop(building, asyncio.get_running_loop().time() + _DROP_S, patient=True)
            except CollectionNotFound:
                pass  # it had not begun, or has taken its place
            except FoveaError as error:
                log.warning("left_over_stays", collection=building, error=str(error))

        task = asyncio.create_task(drop())
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)

    def _renew(self, collection: str) -> None:
        self._generations[collection] = next(self._numbers)

    @contextmanager
    def watched(self, collection: str) -> Iterator[Journal]:
        """A journal of all writes from now on.

        Raises:
            CollectionBusy: somebody watches them already.
        """
        if collection in self._journals:
            raise CollectionBusy(
                f"collection {shorten(collection)} is being built anew already; expected one at a time"
            )
        journal = self._journals[collection] = Journal()
        try:
            yield journal
        finally:
            del self._journals[collection]

    @asynccontextmanager
    async def held_back(self, collection: str, deadline: float) -> AsyncIterator[None]:
        """No writes are done meanwhile: they wait. What was asked for before has been done, and noted."""
        gate = self._gates[collection] = asyncio.Event()
        try:
            await self._threads.write(lambda: None, deadline, patient=True)
            yield
        finally:
            del self._gates[collection]
            gate.set()
