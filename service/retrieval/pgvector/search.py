"""The nearest items of a query: by the HNSW index, or by looking at every item that the filter keeps.

pgvector compares in float32. What it ranks is scored again, from the stored vectors in float64 (see
`scores`), so scores and the order of what was found are those of every engine. By looking at every item the
answer is proved: it stands if no item that was not fetched can belong to it, given how far rounding can be
off; else all those that could are fetched.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg.sql import SQL, Composable, Composed

from service.retrieval import scores
from service.retrieval.index import Metric, SearchOptions, Storage
from service.retrieval.nearest import nearest_of
from service.retrieval.pgvector import vectors
from service.retrieval.pgvector.conditions import Conditions
from service.retrieval.pgvector.database import Cursor
from service.retrieval.pgvector.table import Table
from service.retrieval.rounding import Rounding
from service.retrieval.schema import AttributeValue

# Fetched beyond what is asked for.
_SPARE = 8
# A filter that keeps at most this share of the items, and no more than so many of them, is answered by
# looking at all that it keeps.
_FEW_SHARE, _FEW_ITEMS = 0.05, 20_000
# As pgvector bounds them.
_MIN_CANDIDATES, _MAX_CANDIDATES = 40, 1000
_MOST_SCANNED = 2**31 - 1
# In parts of the database's work_mem.
_SCAN_MEMORY = "4"
# Of vectors scored at once: 16 MiB as they come.
_VALUES = 4 * 1024 * 1024
_STREAMED_ROWS = 1000
_LARGEST_HALF = 65_504.0


class Hit(NamedTuple):
    """An item that was found.

    Attributes:
        id: the item's.
        sequence: its place in the order of writing.
        score: by the metric; a float32 value.
        bytes: of its id and attributes.
        group: its value of the attribute to group by.
    """

    id: str
    sequence: int
    score: float
    bytes: int
    group: AttributeValue | None


class Search:
    """One search, in a transaction that sees one moment."""

    def __init__(
        self, cursor: Cursor, table: Table, queries: NDArray[np.float32], options: SearchOptions
    ) -> None:
        """Decide how to search.

        Args:
            cursor: in the transaction.
            table: the collection.
            queries: float32 [queries, dimension], as `pack_queries` made them.
            options: the filter, the recall, and what to group by; the rest is for `paged`.
        """
        self._cursor, self._table = cursor, table
        self._queries, self._options = queries, options
        self._rounding = Rounding(table.spec.metric, table.spec.dimension)
        self._parameters = vectors.pack(queries, Storage.FLOAT32)
        self._where = Conditions(table, options.filter)
        self._share = 1.0  # of the items, that the filter keeps
        self._approximate = self._may_approximate()
        self._settings: dict[str, str] = {}

    def fetch(self, numbers: Sequence[int], limit: int) -> Iterator[list[Hit]]:
        """The nearest items of some of the queries, nearest first; fewer: there are no more."""
        limit = min(limit, self._table.count)
        # Deep into the ranking the graph is slower than a look at all.
        deepest = max(_MAX_CANDIDATES, _FEW_SHARE * self._share * self._table.count)
        by_index = self._approximate and 0 < limit <= deepest
        for number in numbers:
            hits = self._by_index(number, limit) if by_index else []
            # Too few: the index gave up where a filter keeps hardly any, or there are no more.
            yield hits if len(hits) == limit else self._by_all(number, limit)

    def _may_approximate(self) -> bool:
        table = self._table
        if not table.indexed or self._options.recall >= 1:
            return False
        # A half can't be asked for more.
        if table.indexed_as is Storage.FLOAT16 and np.abs(self._queries).max(initial=0) > _LARGEST_HALF:
            return False
        if self._options.filter is None:
            return True
        kept = self._estimate()
        self._share = min(1.0, kept / max(1, table.count))
        return self._share > _FEW_SHARE or kept > _FEW_ITEMS

    def _estimate(self) -> int:
        """How many items the planner thinks the filter keeps."""
        where = Conditions(self._table, self._options.filter, by_prefix=False)
        query = SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {}").format(self._table.name, where.sql)
        [[[explained]]] = self._cursor.execute(query, where.parameters, binary=False).fetchall()
        return int(explained["Plan"]["Plan Rows"])

    def _by_index(self, number: int, limit: int) -> list[Hit]:
        self._set_up(by_index=True, limit=limit)
        # Halves order what is nearly equally near by chance.
        rounded = self._table.indexed_as is Storage.FLOAT16
        fetched = limit + _SPARE + (limit // 4 if rounded else 0)
        query = self._select(self._table.indexed_distance, self._where.sql, "ORDER BY distance LIMIT %s")
        ranked = self._ranked(number, query, [*self._where.parameters, fetched])
        return nearest_of((hit for hit, _ in ranked), limit)

    def _by_all(self, number: int, limit: int) -> list[Hit]:
        self._set_up(by_index=False, limit=limit)
        wanted = limit + _SPARE
        query = self._select(self._table.distance, self._where.sql, "ORDER BY distance, sequence LIMIT %s")
        ranked = list(self._ranked(number, query, [*self._where.parameters, wanted]))
        hits = nearest_of((hit for hit, _ in ranked), limit)
        if len(ranked) < wanted:
            return hits
        unseen = self._measure(-max(distance for _, distance in ranked))
        last = self._measure(hits[-1].score)
        if last > unseen + self._error(number, unseen):
            return hits
        least = last - 2 * self._error(number, last)
        farthest = math.sqrt(-least) if self._table.spec.metric is Metric.L2 else -least
        where = SQL("({}) AND {} <= %s").format(self._where.sql, self._table.distance)
        query = self._select(self._table.distance, where)
        plausible = self._ranked(number, query, [*self._where.parameters, self._parameters[number], farthest])
        return nearest_of((hit for hit, _ in plausible), limit)

    def _measure(self, score: float) -> float:
        return float(self._rounding.measures(score))

    def _error(self, number: int, measure: float) -> float:
        return float(self._rounding.error(measure, self._queries[number], self._table.largest_norm))

    def _select(self, distance: Composable, where: Composable, ending: str = "") -> Composed:
        group_by = self._options.group_by
        return SQL(
            "SELECT {} AS distance, embedding, id, sequence, octet_length(id) + octet_length(attributes), {} "
            "FROM {} WHERE {} {}"
        ).format(
            distance,
            SQL("NULL") if group_by is None else self._table.column(group_by.attribute),
            self._table.name,
            where,
            SQL(ending),
        )

    def _ranked(
        self, number: int, query: Composed, parameters: Sequence[object]
    ) -> Iterator[tuple[Hit, float]]:
        """Hits with pgvector's distances, as they come; a bounded number of vectors at a time."""
        at_once = max(1, _VALUES // self._table.spec.dimension)
        rows: list[tuple[Any, ...]] = []
        values = [self._parameters[number], *parameters]
        for row in self._cursor.stream(query, values, size=min(at_once, _STREAMED_ROWS)):
            rows.append(row)
            if len(rows) == at_once:
                yield from self._scored(number, rows)
                rows = []
        yield from self._scored(number, rows)

    def _scored(self, number: int, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Hit, float]]:
        spec = self._table.spec
        stored = vectors.unpack([row[1] for row in rows], spec.dimension, spec.storage)
        found = scores.scores_of(spec.metric, stored, self._queries[number]).tolist()
        for (distance, _, name, sequence, size, group), score in zip(rows, found, strict=True):
            yield Hit(name, sequence, score, size, group), distance

    def _set_up(self, *, by_index: bool, limit: int) -> None:
        if by_index:
            settings = {
                "enable_indexscan": "on",
                # The planner doesn't know that long vectors are fetched from elsewhere, one by one, so it
                # thinks too well of comparing and sorting many. Where that is better was decided before.
                "enable_sort": "off",
                "hnsw.ef_search": str(
                    candidates_for(self._options.recall, limit, self._table.count, self._share)
                ),
                # In whatever order they come: all are scored and sorted here.
                "hnsw.iterative_scan": "relaxed_order",
                "hnsw.scan_mem_multiplier": _SCAN_MEMORY,
                "hnsw.max_scan_tuples": str(
                    min(_MOST_SCANNED, max(20_000, math.ceil(4 * limit / self._share)))
                ),
            }
        else:
            settings = {"enable_indexscan": "off", "enable_sort": "on"}
        if settings != self._settings:
            self._settings = settings
            calls = SQL(", ").join([SQL("set_config(%s, %s, true)")] * len(settings))
            pairs = [part for setting in settings.items() for part in setting]
            self._cursor.execute(SQL("SELECT {}").format(calls), pairs)


def candidates_for(recall: float, limit: int, items: int, share: float) -> int:
    """How many candidates HNSW keeps while it walks its graph ("ef_search").

    Fitted to 20,000 vectors spread evenly over a sphere in 64 dimensions, which are as hard to find as any:
    for a recall@10 of 0.90, 0.95, 0.98 and 0.996 they need 100, 140, 200 and 300, for a recall@100 of 0.98
    about 380; where a filter keeps 0.5, 0.2 or 0.06 of them, a recall@10 of 0.98 needs 240, 300 and 400.
    Pictures lie in clusters and need fewer: of 20,000 × 512 in 100 clusters 40 found them all.

    Args:
        recall: the share of the nearest to find, below 1.
        limit: how many are wanted.
        items: of the collection.
        share: of the items, that the filter keeps; above 0.
    """
    easier = 1 + 0.35 * math.log(0.02 / max(1 - recall, 1e-4))
    larger = 1 + 0.25 * math.log2(max(1.0, items / 20_000))
    needed = math.ceil((180 + 2 * limit) * easier * larger / math.pow(share, 0.3))
    return max(_MIN_CANDIDATES, min(_MAX_CANDIDATES, needed))
