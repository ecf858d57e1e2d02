"""The one interface of every retrieval engine: collections of vectors, and the nearest of them.

Calls block: they are made from worker threads, and one index takes calls from several at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.retrieval.filters import Filter
from service.retrieval.schema import AttributeValue, Schema

DEFAULT_RECALL = 0.98


class Metric(Enum):
    """What a score means; on every engine higher is nearer."""

    COSINE = "cosine"
    """The cosine; vectors are normalised as they come in."""
    INNER_PRODUCT = "inner_product"
    L2 = "l2"
    """Minus the Euclidean distance."""


class Storage(Enum):
    """In what vectors are kept; queries and scores are float32 always."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    """Half the room; numbers are rounded as they come in, and those beyond ±65,504 are refused."""


@dataclass(frozen=True)
class CollectionSpec:
    """What a collection is made of, fixed when it is created.

    Attributes:
        name: 1 to 128 letters, digits, '_', '-' and '.', starting with a letter or digit.
        dimension: of every vector, 1 to 65,536.
        metric: how vectors are compared.
        fingerprint: names the model package and precision that make the vectors, at most 512 bytes of
            UTF-8 without zero bytes; empty: anything.
        attributes: those declared, with their types: values are checked, and filters and groups go by
            them. Others are stored and returned, no more.
        storage: of the vectors.
    """

    name: str
    dimension: int
    metric: Metric
    fingerprint: str
    attributes: Schema = field(default_factory=dict)
    storage: Storage = Storage.FLOAT32


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as it stands.

    Attributes:
        spec: what it is made of.
        count: how many items it has.
        index_type: how it is searched just now, in the engine's own word: "flat" is exact.
    """

    spec: CollectionSpec
    count: int
    index_type: str = "flat"


@dataclass(frozen=True)
class Item:
    """One stored vector.

    Attributes:
        id: the caller's own, 1 to 512 bytes of UTF-8.
        vector: float32 [dimension]; [0] where it was not asked for.
        attributes: stored beside it and returned with it; names aren't empty, floats are finite, and
            all together they have at most 64 KiB as JSON.
    """

    id: str
    vector: NDArray[np.float32]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupBy:
    """Diversity: of the items with one value of an attribute only the nearest are kept.

    Attributes:
        attribute: a declared one. Items without it are never limited. Groups are looked for among the
            nearest 65,536 items.
        max_per_group: at least 1.
    """

    attribute: str
    max_per_group: int = 1


@dataclass(frozen=True)
class SearchOptions:
    """Which neighbours are wanted. They apply in this order: filter and minimum score, groups, offset.

    Attributes:
        filter: only items that it keeps.
        min_score: only items with at least this score.
        group_by: at most so many of each group.
        offset: how many of the nearest are left out; 0 or more.
        recall: the share of the true nearest that an approximate index should find, above 0 to 1; 1: all
            of them, by looking at every item.
    """

    filter: Filter | None = None
    min_score: float | None = None
    group_by: GroupBy | None = None
    offset: int = 0
    recall: float = DEFAULT_RECALL


class Neighbor(NamedTuple):  # made in half the time of a frozen dataclass, of which a reply has hundreds
    """One item found.

    Attributes:
        id: the item's.
        score: similarity by the collection's metric; higher is nearer.
        attributes: the item's.
    """

    id: str
    score: float
    attributes: Mapping[str, AttributeValue]


class Index(ABC):
    """Collections of vectors. What a write acknowledges by returning survives the process's death.

    Every method that names a collection raises CollectionNotFound, which lists those there are, but for those
    that are being built (see `collection_names`). A write that the disk refuses raises IndexUnusable and
    changes nothing.

    A read with `max_reply_bytes` raises InvalidRequest where what it would return is larger: ids and
    attributes as stored, in bytes of UTF-8, and 4 bytes a number. It says so before it makes any of it, so
    memory is bounded too.
    """

    @abstractmethod
    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection.

        Raises:
            CollectionExists: the name is taken.
            InvalidRequest: the name, dimension or fingerprint can't be used.
        """

    @abstractmethod
    def drop(self, collection: str) -> None:
        """Remove a collection and all its items."""

    @abstractmethod
    def describe(self, collection: str) -> CollectionInfo:
        """What the collection is made of, and its size."""

    @abstractmethod
    def list_collections(self) -> list[CollectionInfo]:
        """All collections, by name."""

    @abstractmethod
    def upsert(self, collection: str, items: Sequence[Item]) -> None:
        """Write items, replacing those of the same id; all of them or, on an error, none.

        Of several items with one id the last is kept. With the cosine metric vectors are normalised.

        Raises:
            VectorMismatch: a vector of another dimension; names both.
            InvalidRequest: an id or attribute that can't be stored, a vector that isn't finite, or a
                zero vector where the metric is the cosine.
        """

    @abstractmethod
    def delete(self, collection: str, ids: Sequence[str]) -> int:
        """Remove items by id; returns how many were there."""

    @abstractmethod
    def delete_matching(self, collection: str, condition: Filter) -> int:
        """Remove the items that a filter keeps; returns how many.

        Raises:
            InvalidRequest: see `check_filter`.
        """

    @abstractmethod
    def get(
        self,
        collection: str,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        max_reply_bytes: int | None = None,
    ) -> list[Item]:
        """The items of those ids that are there, in the order asked for, with vectors as stored.

        Raises:
            InvalidRequest: they are larger than `max_reply_bytes`.
        """

    @abstractmethod
    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors, float32 [dimension], of those ids that are there, as stored."""

    @abstractmethod
    def count(self, collection: str, condition: Filter | None = None) -> int:
        """How many items the collection has, or of them a filter keeps.

        Raises:
            InvalidRequest: see `check_filter`.
        """

    @abstractmethod
    def scan(
        self,
        collection: str,
        *,
        after: str = "",
        limit: int = 1000,
        condition: Filter | None = None,
        include_vectors: bool = True,
        max_reply_bytes: int | None = None,
    ) -> list[Item]:
        """A page of the items in the order of their ids (by code point), as they stand now.

        Args:
            collection: where.
            after: the last id of the page before; "": from the first.
            limit: at most so many items, at least 1. Fewer mean that there are no more, unless
                `max_reply_bytes` ended the page.
            condition: only items that it keeps.
            include_vectors: else they are [0].
            max_reply_bytes: ends the page before the item that would pass it, but after one at least.

        Raises:
            InvalidRequest: see `check_filter`, `limit` below 1, or `after` that is no UTF-8.
        """

    @abstractmethod
    def items(self, collection: str) -> AbstractContextManager[Iterator[list[Item]]]:
        """All items of one moment, some at a time, in the order of writing; writes meanwhile don't show.

        An engine that can't hold a moment says so in its docstring.
        """

    @abstractmethod
    def search(
        self,
        collection: str,
        queries: NDArray[np.float32],
        top_k: int,
        *,
        options: SearchOptions = SearchOptions(),
        excluded_ids: Sequence[str | None] | None = None,
        max_reply_bytes: int | None = None,
    ) -> list[list[Neighbor]]:
        """The nearest items of each query, nearest first, at most `top_k`; ties in the order of writing.

        An item that was deleted or that the filter leaves out is never among them, whatever the recall.

        Args:
            collection: where.
            queries: float32 [queries, dimension].
            top_k: at least 1.
            options: which are wanted.
            excluded_ids: for each query an item that isn't among its neighbours, or None.
            max_reply_bytes: of all neighbours together; None: any number.

        Raises:
            VectorMismatch: queries of another dimension; names both.
            InvalidRequest: a query that isn't finite, or zero where the metric is the cosine; options that
                can't be met (`check_options`); or the neighbours are larger than `max_reply_bytes`.
        """

    @abstractmethod
    def flush(self, collection: str) -> None:
        """Bring everything derived up to date, and wait for it: indexes under way, snapshots of them.

        Writes are durable and found without it; afterwards searches are as fast as they get.
        """

    @abstractmethod
    def replace(self, collection: str, by: str) -> None:
        """Let the collection `by` take the name `collection`, whose items go, in one step.

        Nobody sees neither or both; a crash leaves the one or the other state.
        """

    @abstractmethod
    def rename(self, collection: str, name: str) -> None:
        """Let a collection take a free name, in one step.

        Raises:
            CollectionExists: the name is taken.
            InvalidRequest: the name can't be used.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the folder, files or connections; no call may follow."""
