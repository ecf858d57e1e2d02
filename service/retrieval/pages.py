"""Items read some at a time: in the order of writing, or of their ids."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import numpy as np

from service.retrieval.columns import Mask
from service.retrieval.filters import Filter
from service.retrieval.index import Item
from service.retrieval.masks import kept_by, kept_of
from service.retrieval.replies import attributes_of, items_at
from service.retrieval.rows import Rows
from service.retrieval.segments import Segment, Segments

Place = tuple[Segment, int]
_PAGE_BYTES = 1024 * 1024
_IDS_AT_ONCE = 1000
# Where a filter keeps at most so many items for each one wanted, they are sorted here; else it keeps so many
# that they are soon met in the order of all ids.
_SORTED_SHARE = 50


def in_order_of_writing(segments: Sequence[Segment]) -> Iterator[list[Item]]:
    """All live items, about a megabyte of vectors at a time."""
    for segment in segments:
        rows = np.flatnonzero(~segment.dead[: segment.used]).tolist()
        size = max(1, _PAGE_BYTES // segment.vectors[:1].nbytes)
        for start in range(0, len(rows), size):
            places = [(segment, row) for row in rows[start : start + size]]
            yield items_at(places, attributes_of(places, 0, None, ""), include_vectors=True)


def in_order_of_ids(
    segments: Segments,
    ids_after: Callable[[str, int], Sequence[str]],
    after: str,
    limit: int,
    condition: Filter | None,
) -> Iterator[Place]:
    """The places of the items with greater ids, by code point, of which no more than `limit` are taken.

    Args:
        segments: the collection.
        ids_after: the next ids after one, in order, at most so many; some of them may not be there.
        after: an id, or "".
        limit: at least 1.
        condition: only items that it keeps.
    """
    if condition is not None and (view := segments.view()):
        rows = Rows(view, kept_by(condition, view))
        if rows.live <= _SORTED_SHARE * limit:
            named = ((segment.ids[row], (segment, row)) for segment, row in rows.places(rows.numbers))
            behind = (pair for pair in named if pair[0] > after)
            yield from map(itemgetter(1), heapq.nsmallest(min(limit, rows.live), behind, key=itemgetter(0)))
            return
    masks: dict[int, tuple[Segment, Mask]] = {}
    while names := ids_after(after, min(limit, _IDS_AT_ONCE)):
        after = names[-1]
        for segment, row in segments.read(names):
            if condition is None:
                yield segment, row
                continue
            # By identity, as comparing segments would compare arrays; kept with its mask, so that no other
            # takes its identity.
            if id(segment) not in masks:
                masks[id(segment)] = (segment, kept_of(condition, segment))
            if masks[id(segment)][1][row]:
                yield segment, row
