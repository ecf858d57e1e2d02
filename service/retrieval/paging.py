"""From what an engine ranks to what was asked for: minimum score, groups, offset, and the item left out."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from service.retrieval.index import SearchOptions
from service.retrieval.schema import AttributeValue


class Ranked(Protocol):
    """What an engine found."""

    @property
    def id(self) -> str:
        """The item's."""

    @property
    def score(self) -> float:
        """Higher is nearer."""


T = TypeVar("T", bound=Ranked)
# How much deeper an engine looks where what it ranked was not enough.
_DEEPER = 4
# No query is ranked deeper than this for the sake of its groups: one group may hold a whole collection.
MAX_RANKED = 65_536


def paged(
    fetch: Callable[[Sequence[int], int], Iterable[Sequence[T]]],
    queries: int,
    top_k: int,
    options: SearchOptions,
    excluded_ids: Sequence[str | None] | None,
    group_of: Callable[[T], AttributeValue | None],
) -> list[list[T]]:
    """Each query's neighbours as the options want them; asks the engine for more only where it must.

    Args:
        fetch: given numbers of queries and a limit, each one's nearest items that the filter keeps, nearest
            first; fewer than the limit where there are no more. It may make them as they are taken.
        queries: how many there are.
        top_k: neighbours of each, at most.
        options: its minimum score, groups and offset; the filter and the recall are for `fetch`.
        excluded_ids: as in `Index.search`.
        group_of: an item's value of the attribute to group by; None: it has none.
    """
    excluded = excluded_ids or [None] * queries
    wanted = options.offset + top_k
    limit = wanted + any(name is not None for name in excluded)
    results: list[list[T]] = [[] for _ in range(queries)]
    pending: Sequence[int] = range(queries)
    while pending:
        unfinished = []
        for number, ranked in zip(pending, fetch(pending, limit), strict=True):
            kept = _kept(ranked, options, excluded[number], group_of)
            results[number] = kept[options.offset : wanted]
            more = len(ranked) >= limit and not _below(ranked[-1], options)
            if len(kept) < wanted and more:
                unfinished.append(number)
        pending = unfinished if limit < MAX_RANKED else ()
        limit = min(limit * _DEEPER, MAX_RANKED)
    return results


def _kept(
    ranked: Sequence[T],
    options: SearchOptions,
    excluded_id: str | None,
    group_of: Callable[[T], AttributeValue | None],
) -> list[T]:
    kept = list(ranked)
    if excluded_id is not None:
        kept = [item for item in kept if item.id != excluded_id]
    if options.min_score is not None:
        kept = [item for item in kept if not _below(item, options)]
    if options.group_by is None:
        return kept
    members: Counter[AttributeValue] = Counter()
    diverse = []
    for item in kept:
        group = group_of(item)
        if group is not None:
            members[group] += 1
            if members[group] > options.group_by.max_per_group:
                continue
        diverse.append(item)
    return diverse


def _below(item: Ranked, options: SearchOptions) -> bool:
    return options.min_score is not None and item.score < options.min_score
