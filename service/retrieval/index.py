"""The one interface of every retrieval engine: collections of vectors, and the nearest of them.

Calls block: they are made from worker threads, and one index takes calls from several at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

AttributeValue = str | int | float | bool


class Metric(Enum):
    """What a score means; on every engine higher is nearer."""

    COSINE = "cosine"
    """The cosine; vectors are normalised as they come in."""
    INNER_PRODUCT = "inner_product"
    L2 = "l2"
    """Minus the Euclidean distance."""


@dataclass(frozen=True)
class CollectionSpec:
    """What a collection is made of, fixed when it is created.

    Attributes:
        name: 1 to 128 letters, digits, '_', '-' and '.', starting with a letter or digit.
        dimension: of every vector, 1 to 65,536.
        metric: how vectors are compared.
        fingerprint: names the model package and precision that make the vectors, at most 512 bytes of
            UTF-8; empty: anything.
    """

    name: str
    dimension: int
    metric: Metric
    fingerprint: str


@dataclass(frozen=True)
class CollectionInfo:
    """A collection as it stands: its spec and how many items it has."""

    spec: CollectionSpec
    count: int


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
class Neighbor:
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

    Every method that names a collection raises CollectionNotFound, which lists those there are. A write
    that the disk refuses raises IndexUnusable and changes nothing.

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
    def count(self, collection: str) -> int:
        """How many items the collection has."""

    @abstractmethod
    def search(
        self,
        collection: str,
        queries: NDArray[np.float32],
        top_k: int,
        *,
        excluded_ids: Sequence[str | None] | None = None,
        max_reply_bytes: int | None = None,
    ) -> list[list[Neighbor]]:
        """The nearest items of each query, nearest first, at most `top_k`; ties in the order of writing.

        Args:
            collection: where.
            queries: float32 [queries, dimension].
            top_k: at least 1.
            excluded_ids: for each query an item that isn't among its neighbours, or None.
            max_reply_bytes: of all neighbours together; None: any number.

        Raises:
            VectorMismatch: queries of another dimension; names both.
            InvalidRequest: a query that isn't finite, or zero where the metric is the cosine; or the
                neighbours are larger than `max_reply_bytes`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the folder, files or connections; no call may follow."""
