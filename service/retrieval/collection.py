"""One collection of the embedded engine: all that is read of it, from memory, without waiting for writers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.retrieval import one_bit
from service.retrieval.checks import check_options, check_page, check_top_k, pack_queries
from service.retrieval.filters import Filter, check_filter
from service.retrieval.index import CollectionInfo, CollectionSpec, Item, Neighbor, SearchOptions
from service.retrieval.masks import kept_by
from service.retrieval.pages import in_order_of_ids, in_order_of_writing
from service.retrieval.paging import MAX_RANKED, paged
from service.retrieval.replies import (
    FEWER_NEIGHBORS,
    NUMBER_BYTES,
    attributes_of,
    bytes_of,
    bytes_of_vector,
    fewer_ids,
    first_of,
    items_at,
)
from service.retrieval.rows import Hit
from service.retrieval.schema import AttributeValue
from service.retrieval.segments import Segments
from service.retrieval.upkeep import Upkeep


@dataclass(frozen=True)
class Collection:
    """Methods do what those of `Index` of the same name do.

    Attributes:
        key: the record's.
        spec: what it is made of.
        segments: its items.
        upkeep: what is derived from them.
    """

    key: int
    spec: CollectionSpec
    segments: Segments
    upkeep: Upkeep

    @property
    def info(self) -> CollectionInfo:
        """As it stands."""
        return CollectionInfo(self.spec, len(self.segments), "1-bit" if self.upkeep.tier else "flat")

    def get(self, ids: Sequence[str], *, include_vectors: bool, max_reply_bytes: int | None) -> list[Item]:
        """See `Index.get`."""
        places = self.segments.read(ids)
        vector_bytes = bytes_of_vector(self.spec.dimension, include_vectors=include_vectors)
        remedy = fewer_ids(include_vectors=include_vectors)
        attributes = attributes_of(places, vector_bytes, max_reply_bytes, remedy)
        return items_at(places, attributes, include_vectors=include_vectors)

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Index.vectors`."""
        places = self.segments.read(dict.fromkeys(ids))
        return {segment.ids[row]: segment.vectors[row].astype(np.float32) for segment, row in places}

    def count(self, condition: Filter | None) -> int:
        """See `Index.count`."""
        if condition is None:
            return len(self.segments)
        check_filter(self.spec.attributes, condition)
        return sum(int(np.count_nonzero(mask)) for mask in kept_by(condition, self.segments.view()))

    def matching(self, condition: Filter) -> list[str]:
        """The ids that a filter keeps.

        Raises:
            InvalidRequest: see `check_filter`.
        """
        check_filter(self.spec.attributes, condition)
        view = self.segments.view()
        return [
            segment.ids[row]
            for segment, mask in zip(view, kept_by(condition, view), strict=True)
            for row in np.flatnonzero(mask).tolist()
        ]

    def scan(
        self,
        ids_after: Callable[[str, int], Sequence[str]],
        *,
        after: str,
        limit: int,
        condition: Filter | None,
        include_vectors: bool,
        max_reply_bytes: int | None,
    ) -> list[Item]:
        """See `Index.scan`, and `in_order_of_ids`."""
        check_page(after, limit)
        if condition is not None:
            check_filter(self.spec.attributes, condition)
        walk = in_order_of_ids(self.segments, ids_after, after, limit, condition)
        vector_bytes = bytes_of_vector(self.spec.dimension, include_vectors=include_vectors)
        places = first_of(walk, lambda place: vector_bytes + bytes_of(place), limit, max_reply_bytes)
        return items_at(places, attributes_of(places, 0, None, ""), include_vectors=include_vectors)

    def items(self) -> Iterator[list[Item]]:
        """See `Index.items`: those of the moment of the call."""
        return in_order_of_writing(self.segments.view())

    def search(
        self,
        queries: NDArray[np.float32],
        top_k: int,
        options: SearchOptions,
        excluded_ids: Sequence[str | None] | None,
        max_reply_bytes: int | None,
    ) -> list[list[Neighbor]]:
        """See `Index.search`."""
        check_top_k(top_k)
        check_options(self.spec, options)
        vectors = pack_queries(self.spec, queries)
        # First the tier: rows that came after it are seen in the segments.
        tier, view = self.upkeep.tier, self.segments.view()
        kept = None if options.filter is None else kept_by(options.filter, view)

        def fetch(numbers: Sequence[int], limit: int) -> Iterator[list[Hit]]:
            # Some queries at a time, so that hits are bounded however deep groups are looked for.
            at_once = max(1, MAX_RANKED // limit)
            for start in range(0, len(numbers), at_once):
                part = vectors[numbers[start : start + at_once]]
                yield from one_bit.search(tier, view, self.spec.metric, part, limit, kept, options.recall)

        def group_of(hit: Hit) -> AttributeValue | None:
            if options.group_by is None:
                return None
            return hit.segment.columns[options.group_by.attribute].value(hit.row)

        hits_of_queries = paged(fetch, len(vectors), top_k, options, excluded_ids, group_of)
        attributes = iter(
            attributes_of(
                [(segment, row) for hits in hits_of_queries for segment, row, _ in hits],
                NUMBER_BYTES,
                max_reply_bytes,
                FEWER_NEIGHBORS,
            )
        )
        return [
            [Neighbor(segment.ids[row], score, next(attributes)) for segment, row, score in hits]
            for hits in hits_of_queries
        ]
