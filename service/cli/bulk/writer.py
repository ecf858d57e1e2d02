"""Writes a batch of images: each content is embedded once, and its vector written for all that have it."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fovea import (
    AttributeValue,
    Client,
    Collection,
    FoveaError,
    Item,
    Overloaded,
    ResourceExhausted,
    Unavailable,
    UpsertResult,
)
from fovea.errors import Cancelled, DeadlineExceeded
from numpy.typing import NDArray

from service.cli.bulk.entry import TarMember
from service.cli.bulk.stored import Stored

# How long a server that is full is asked again, without any progress.
_PATIENCE_S = 300.0
_LONGEST_PAUSE_S = 10.0
# Not the item's fault: it may be written another time.
_TRANSIENT = (Overloaded, Unavailable, DeadlineExceeded, Cancelled)


@dataclass(frozen=True)
class Work:
    """One item to write.

    Attributes:
        id: the item's.
        place: where the image's bytes are.
        content: them; empty where they are read elsewhere.
        sha256: of them.
        attributes: all of the item's.
        is_same: whether the item is there with this content, and only what is said of it is another.
    """

    id: str
    place: Path | TarMember
    content: bytes
    sha256: str
    attributes: Mapping[str, AttributeValue]
    is_same: bool = False


@dataclass
class Written:
    """What became of a batch.

    Attributes:
        embedded: images that the server embedded.
        copied: items whose vector was there already.
        errors: why items were not written, by id.
    """

    embedded: int
    copied: int
    errors: dict[str, FoveaError]


class Writer:
    """Writes to one collection, from several threads; every write names the fingerprint of its vectors."""

    def __init__(self, client: Client, collection: Collection, stored: Stored) -> None:
        self._client, self._collection, self._stored = client, collection, stored
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let waiting for a full server end with its error."""
        self._stopping.set()

    def write(self, batch: Sequence[Work]) -> Written:
        """Write items; when it returns they are on the server's disk, or have an error of their own.

        Raises:
            FoveaError: the server can't be reached, stays full, or refuses the collection's vectors.
        """
        written = Written(0, 0, {})
        waiting: dict[str, list[Work]] = {}
        for work in batch:
            if work.is_same:
                self._stored.remember(work.sha256, work.id)
            waiting.setdefault(work.sha256, []).append(work)
        while waiting:
            holders = self._stored.holders(waiting)
            vectors = self._stored.vectors(holders) if holders else {}
            copies = [
                Item(work.id, vector=vectors[digest], attributes=work.attributes)
                for digest, works in waiting.items()
                if digest in vectors
                for work in works
            ]
            images = [works[0] for digest, works in waiting.items() if digest not in vectors]
            results = self.upsert(copies) | self.embed(images)
            waiting = self._settle(waiting, vectors, results, written)
        return written

    def embed(self, images: Sequence[Work]) -> dict[str, UpsertResult]:
        """Embed images, each content once, and write them; what became of each, by id; raises as `write`."""
        return self.upsert([Item(work.id, image=work.content, attributes=work.attributes) for work in images])

    def _settle(
        self,
        waiting: Mapping[str, list[Work]],
        vectors: Mapping[str, NDArray[np.float32]],
        results: Mapping[str, UpsertResult],
        written: Written,
    ) -> dict[str, list[Work]]:
        """Count what was written; gives what has still to be."""
        left: dict[str, list[Work]] = {}
        for digest, works in waiting.items():
            sent = works if digest in vectors else works[:1]
            for work in sent:
                error = results[work.id].error
                if error is not None:
                    written.errors[work.id] = error
                elif digest in vectors:
                    written.copied += 1
                else:
                    written.embedded += 1
                    self._stored.remember(digest, work.id)
            if len(works) > len(sent):
                left[digest] = works[len(sent) :]
        return left

    def upsert(self, items: list[Item]) -> dict[str, UpsertResult]:
        """Write items, waiting for a server that is full; what became of each, by id; raises as `write`."""
        settled: dict[str, UpsertResult] = {}
        deadline = time.monotonic() + _PATIENCE_S
        while items:
            failure: FoveaError | None = None
            try:
                results = self._client.upsert(
                    self._collection.name, items, fingerprint=self._collection.fingerprint
                )
            except Overloaded as error:
                failure, results = error, []
            except ResourceExhausted as error:  # this server takes smaller messages
                if len(items) == 1:
                    return settled | {items[0].id: UpsertResult(items[0].id, error)}
                for item in items:
                    settled |= self.upsert([item])
                return settled
            for result in results:
                if isinstance(result.error, _TRANSIENT):
                    failure = result.error
                else:
                    settled[result.id] = result
                    deadline = time.monotonic() + _PATIENCE_S
            items = [item for item in items if item.id not in settled]
            if failure is not None:
                self._pause(failure, deadline)
        return settled

    def _pause(self, failure: FoveaError, deadline: float) -> None:
        if not isinstance(failure, Overloaded) or time.monotonic() > deadline:
            raise failure
        if self._stopping.wait(min(_LONGEST_PAUSE_S, max(0.1, failure.retry_after_s or 1.0))):
            raise failure
