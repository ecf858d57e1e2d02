"""What a score is, to the last bit: float64 arithmetic on stored vectors, rounded to float32.

Engines compare in float32, where rounding depends on where a row stands, so two equal items would have
different scores, and an order that changes when the index is reopened. What is returned is scored here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.rows import Rows

# Of vectors scored at once: 32 MiB in float64.
_VALUES = 4 * 1024 * 1024


def scores_of(metric: Metric, vectors: NDArray[Any], queries: NDArray[Any]) -> NDArray[np.float32]:
    """Scores float32 [..., rows] of vectors [..., rows, dimension] for queries [..., dimension]."""
    wide, others = vectors.astype(np.float64, copy=False), queries.astype(np.float64, copy=False)
    if metric is Metric.L2:
        differences = wide - others[..., None, :]
        distances = np.sqrt(np.einsum("...rd,...rd->...r", differences, differences))
        return np.asarray(-distances, np.float32)
    products = np.einsum("...rd,...d->...r", wide, others)
    if metric is Metric.COSINE:
        np.clip(products, -1, 1, out=products)  # vectors of length 1 ± rounding
    return np.asarray(products, np.float32)


def rescored(
    rows: Rows, metric: Metric, queries: NDArray[np.float32], numbers: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Scores float32 [queries, candidates] of each query's own candidates; a bounded number at once.

    Args:
        rows: where the candidates are.
        metric: of the collection.
        queries: float32 [queries, dimension].
        numbers: int64 [queries, candidates]: the candidates' row numbers.
    """
    count, candidates = numbers.shape
    dimension = queries.shape[1]
    scores = np.empty(numbers.shape, np.float32)
    columns = max(1, min(candidates, _VALUES // dimension))
    lines = max(1, _VALUES // (dimension * columns))
    for line in range(0, count, lines):
        for column in range(0, candidates, columns):
            part = np.s_[line : line + lines, column : column + columns]
            scores[part] = scores_of(metric, rows.gather(numbers[part]), queries[line : line + lines])
    return scores


def nearest_of_all(
    rows: Rows, metric: Metric, queries: NDArray[np.float32], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score every row that may be found for every query.

    Returns:
        Row numbers int64 and scores float32, [queries, min(top_k, rows.live)], nearest first, ties by number.
    """
    scores = np.empty((len(queries), rows.live), np.float32)
    wide_queries = queries.astype(np.float64)
    size = max(1, _VALUES // queries.shape[1])
    for first in range(0, rows.live, size):
        wide = rows.gather(rows.numbers[first : first + size]).astype(np.float64)
        for line, query in enumerate(wide_queries):
            scores[line, first : first + size] = scores_of(metric, wide, query)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]  # numbers rise: ties keep their order
    return rows.numbers[order], np.take_along_axis(scores, order, 1)
