"""α query expansion: Radenović, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
2018 (arXiv:1711.02512), section 5.1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.retrieval.index import CollectionSpec, Metric, Neighbor


@dataclass(frozen=True)
class Expansion:
    """How queries are expanded.

    Attributes:
        neighbors: how many of the nearest are added, at least 1.
        alpha: the power of their scores; 0: all weigh the same, which is average query expansion.
    """

    neighbors: int = 10
    alpha: float = 3.0


def check_expansion(spec: CollectionSpec, expansion: Expansion) -> None:
    """Raises:
    InvalidRequest: an alpha that is negative or not finite, or a metric whose scores aren't weights.
    """
    if not (math.isfinite(expansion.alpha) and expansion.alpha >= 0):
        raise InvalidRequest(f"query_expansion has alpha {expansion.alpha}; expected 0 or more")
    if spec.metric is Metric.L2:
        raise InvalidRequest(
            f"query_expansion weighs neighbours by their similarity, and collection {spec.name} has metric "
            "l2, whose scores are negative; expected a collection of metric cosine or inner_product"
        )


def expand(
    metric: Metric,
    query: NDArray[np.float32],
    neighbors: Sequence[Neighbor],
    vectors: Mapping[str, NDArray[np.float32]],
    alpha: float,
) -> NDArray[np.float32]:
    """The query plus its neighbours, each times max(score, 0)^alpha, brought to the query's length.

    Args:
        metric: cosine or inner product.
        query: float32 [dimension]; it weighs by its score with itself.
        neighbors: the nearest to it.
        vectors: theirs by id, float32 [dimension]; those that have been deleted meanwhile are passed over.
        alpha: 0 or more.

    Returns:
        float32 [dimension].
    """
    own = query.astype(np.float64)
    length = math.sqrt(float(own @ own))
    if not length:  # only the inner product lets it through; all are equally near to it
        return query
    if metric is Metric.COSINE:
        own /= length
    there = [neighbor for neighbor in neighbors if neighbor.id in vectors]
    rows = np.stack([own, *(vectors[neighbor.id].astype(np.float64) for neighbor in there)])
    scores = np.maximum([float(own @ own), *(neighbor.score for neighbor in there)], 0.0)
    # Over the largest, so that no power overflows; the sum's direction stays.
    total = ((scores / scores.max()) ** alpha) @ rows
    norm = math.sqrt(float(total @ total))
    return (total * (length / norm)).astype(np.float32) if norm else query
