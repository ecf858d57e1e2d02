"""What a search may be told besides its query."""

from typing import TypedDict

from fovea.filters import Filter
from fovea.types import GroupBy, QueryExpansion


class SearchOptions(TypedDict, total=False):
    """Which neighbours are wanted: keyword arguments of `search` and `search_batch`.

    They apply in this order: filter and minimum score, groups, offset.

    Attributes:
        filter: only items that it keeps, for instance `fovea.attribute("year") >= 2020`.
        min_score: only items with at least this score.
        group_by: an attribute (then one item of each of its values), or a GroupBy.
        offset: how many of the nearest to leave out, for paging.
        recall: the share of the true nearest that an approximate index should find, above 0 to 1; 1: all,
            by looking at every item. Default: the server's, 0.98.
        expansion: α query expansion; the filter holds for both of its passes. Not with the metric l2.
    """

    filter: Filter | None
    min_score: float | None
    group_by: str | GroupBy | None
    offset: int
    recall: float | None
    expansion: QueryExpansion | None
