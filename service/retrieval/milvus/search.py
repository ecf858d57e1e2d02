"""The nearest items of a query: by Milvus's index, or by looking at every item that the filter keeps.

Milvus compares in float32. What it ranks is scored again, from the stored vectors in float64 (see `scores`),
so scores and the order of what was found are those of every engine.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.retrieval import scores
from service.retrieval.index import Metric, SearchOptions
from service.retrieval.milvus import reading
from service.retrieval.milvus.conditions import TRUE, translated
from service.retrieval.milvus.server import Server
from service.retrieval.milvus.table import (
    ATTRIBUTES,
    ID,
    METRICS,
    SEQUENCE,
    VECTOR,
    Table,
    attributes_text,
    vectors_of,
)
from service.retrieval.nearest import nearest_of
from service.retrieval.rounding import Rounding

# Fetched beyond what is asked for, as items that are equally near come in any order.
_SPARE = 8
_DEEPER = 4
# So many that a filter keeps are read in no more time than a search takes.
_FEW_ITEMS = 256
# As Milvus bounds them: neighbours of one query, and candidates ("ef").
_MAX_LIMIT, _MAX_CANDIDATES = 16_384, 32_768
# Of the vectors in one reply: 16 MiB.
_VALUES = 4 * 1024 * 1024
_FIELDS = [ID, SEQUENCE, ATTRIBUTES, VECTOR]


class Hit(NamedTuple):
    """An item that was found.

    Attributes:
        id: the item's.
        sequence: its place in the order of writing.
        score: by the metric; a float32 value.
        attributes: as JSON.
    """

    id: str
    sequence: int
    score: float
    attributes: str


class Search:
    """One search."""

    def __init__(
        self, server: Server, table: Table, queries: NDArray[np.float32], options: SearchOptions
    ) -> None:
        """Decide how to search.

        Args:
            server: has the collection.
            table: the collection.
            queries: float32 [queries, dimension], as `pack_queries` made them.
            options: the filter and the recall; the rest is for `paged`.
        """
        self._server, self._table, self._queries, self._options = server, table, queries, options
        self._where = translated(table, options.filter)
        self._rounding = Rounding(table.spec.metric, table.spec.dimension)
        self._flat = table.index_type == "flat"
        self._share = 1.0  # of the items, that the filter keeps
        self._exact = not self._flat and self._best_exact()

    def fetch(self, numbers: Sequence[int], limit: int) -> Iterator[list[Hit]]:
        """The nearest items of some of the queries, nearest first; fewer: there are no more."""
        if self._exact:
            yield from self._by_all(numbers, limit)
            return
        at_once = max(1, _VALUES // (self._table.spec.dimension * (limit + _SPARE)))
        for start in range(0, len(numbers), at_once):
            yield from self._by_index(numbers[start : start + at_once], limit)

    def _best_exact(self) -> bool:
        """Whether all that the filter keeps is to be read: the graph leads past what is rare."""
        if self._options.recall >= 1:
            return True
        if self._options.filter is None:
            return False
        # What was written just now may be left out: for an estimate nobody waits.
        kept = reading.count(self._server, self._table, self._where, consistency="Eventually")
        items = reading.count(self._server, self._table, TRUE, consistency="Eventually")
        self._share = min(1.0, max(1, kept) / max(1, items))
        return kept <= _FEW_ITEMS

    def _by_index(self, numbers: Sequence[int], limit: int) -> Iterator[list[Hit]]:
        """Milvus ranks; more of it where rounding, or equal scores, leave open what is nearest."""
        fetched = limit + _SPARE
        found: dict[int, list[Hit]] = {}
        open_numbers = list(numbers)
        while open_numbers:
            if fetched > _MAX_LIMIT or fetched * self._table.spec.dimension > _VALUES:
                found |= zip(open_numbers, self._by_all(open_numbers, limit), strict=True)
                break
            ranked = self._ranked(open_numbers, fetched)
            found |= zip(open_numbers, self._read(open_numbers, ranked, limit), strict=True)
            short = [number for number in open_numbers if len(found[number]) < limit]
            if not self._flat:
                # An index that may miss some isn't asked again for the sake of some. But where a filter keeps
                # few it may give up, and then these are few to read.
                found |= zip(short, self._by_all(short, limit), strict=True)
                break
            open_numbers = [
                number
                for number, told in zip(open_numbers, ranked, strict=True)
                if len(told) == fetched and (number in short or self._doubtful(number, found[number], told))
            ]
            fetched *= _DEEPER
        return iter([found[number] for number in numbers])

    def _ranked(self, numbers: Sequence[int], limit: int) -> list[dict[str, float]]:
        """Of each query ids with what Milvus told of them: inner products, or minus squared distances."""
        metric = self._table.spec.metric
        parameters = {} if self._flat else {"ef": candidates_for(self._options.recall, limit, self._share)}
        results = self._server.call(
            "search",
            self._table.name,
            data=list(self._queries[list(numbers)]),
            filter=self._where,
            limit=limit,
            anns_field=VECTOR,
            output_fields=[ID],
            search_params={"metric_type": METRICS[metric], "params": parameters},
            consistency_level="Strong",
        )
        sign = -1.0 if metric is Metric.L2 else 1.0
        return [{found["id"]: sign * float(found["distance"]) for found in result} for result in results]

    def _read(
        self, numbers: Sequence[int], ranked: Sequence[dict[str, float]], limit: int
    ) -> Iterator[list[Hit]]:
        """The nearest of what was ranked, as it is now: Milvus itself would fail where some of it is gone."""
        ids = list(dict.fromkeys(name for told in ranked for name in told))
        rows = reading.settled(self._server, self._table, ids, _FIELDS, self._where)
        for number, told in zip(numbers, ranked, strict=True):
            own = [rows[name] for name in told if name in rows]
            hits = _hits(own, self._scores(number, self._vectors(own)))
            yield nearest_of(hits, limit)

    def _doubtful(self, number: int, hits: Sequence[Hit], told: dict[str, float]) -> bool:
        """Whether an item that Milvus ranked behind all of these may belong to the nearest."""
        unseen = min(told.values())
        return float(self._rounding.measures(hits[-1].score)) <= unseen + self._error(number, unseen, told)

    def _error(self, number: int, measure: float, told: dict[str, float]) -> float:
        """How far a measure that Milvus took of about this size may be off.

        A distance may be computed from the lengths, of which none here is longer than the query and the
        distance together. An inner product tells nothing of the length; there the scores seen stand for it.
        """
        length = float(np.linalg.norm(self._queries[number].astype(np.float64)))
        if self._table.spec.metric is Metric.L2:
            scale = 2 * (length + math.sqrt(max(0.0, -measure))) ** 2 + length**2
        else:
            scale = max(length, *map(abs, told.values()))
        return float(self._rounding.bound(scale))

    def _by_all(self, numbers: Sequence[int], limit: int) -> Iterator[list[Hit]]:
        """Every item that the filter keeps is read and scored here."""
        if not numbers:
            return iter(())
        best: dict[int, list[Hit]] = {number: [] for number in numbers}
        at_once = reading.rows_at_once(self._table)
        for rows in reading.pages(self._server, self._table, self._where, _FIELDS, at_once=at_once):
            vectors = self._vectors(rows)
            for number in numbers:
                found = self._scores(number, vectors)
                # Hits are made only of those that may stay; equal scores may all.
                least = np.partition(found, -limit)[-limit] if len(rows) > limit else -np.inf
                hits = _hits([rows[place] for place in np.flatnonzero(found >= least)], found[found >= least])
                best[number] = nearest_of([*best[number], *hits], limit)
        return iter(best.values())

    def _vectors(self, rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
        return vectors_of(rows, self._table.spec.dimension).astype(np.float64)

    def _scores(self, number: int, vectors: NDArray[np.float64]) -> NDArray[np.float32]:
        return scores.scores_of(self._table.spec.metric, vectors, self._queries[number])


def candidates_for(recall: float, limit: int, share: float) -> int:
    """How many candidates HNSW keeps while it walks its graph ("ef"), in each of Milvus's segments.

    Fitted to 20,000 vectors spread evenly over a sphere in 64 dimensions, which are as hard to find as any:
    for a recall@10 of 0.91, 0.986 and 0.997 Milvus 2.3.5 needed 142, 324 and 507, for a recall@100 of 0.92,
    0.989 and 0.998 260, 594 and 929. Pictures lie in clusters and need fewer.

    Args:
        recall: the share of the nearest to find, below 1.
        limit: how many are wanted.
        share: of the items, that the filter keeps; above 0.
    """
    easier = 1 + 0.35 * math.log(0.02 / max(1 - recall, 1e-4))
    needed = math.ceil((270 + 3 * limit) * max(0.1, easier) / share)
    return max(limit, 16, min(_MAX_CANDIDATES, needed))


def _hits(rows: Sequence[dict[str, Any]], found: NDArray[np.float32]) -> list[Hit]:
    return [
        Hit(row[ID], row[SEQUENCE], score, attributes_text(row))
        for row, score in zip(rows, found.tolist(), strict=True)
    ]
