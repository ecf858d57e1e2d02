"""Vectors as embeddings lie: around some centres. What is nearest among them, by brute force."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.retrieval.checks import Batch
from service.retrieval.index import Metric
from service.retrieval.segments import Segments

DIMENSION = 64


def drawn(count: int, seed: int, *, centers: int = 8, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """Unit vectors float32 [count, dimension]; the centres are the same for every seed."""
    places = np.random.default_rng(0).standard_normal((centers, dimension))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    vectors = places[random.integers(0, centers, count)]
    vectors += random.standard_normal((count, dimension)) * (0.5 / dimension**0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def stretched(vectors: NDArray[np.float32], spread: float) -> NDArray[np.float32]:
    """With lengths of a log-normal distribution."""
    lengths = np.exp(spread * np.random.default_rng(1).standard_normal((len(vectors), 1)))
    return (vectors * lengths).astype(np.float32)


def filled(
    vectors: NDArray[np.float32], max_rows: int = 1000, *, segments: Segments | None = None
) -> Segments:
    """Segments with those rows, whose ids are their numbers, behind those that are there."""
    segments = segments if segments is not None else Segments(vectors.shape[1], max_rows)
    last = max((int(segment.sequences[segment.used - 1]) for segment in segments.view()), default=0)
    sequences = np.arange(last + 1, last + 1 + len(vectors))
    ids = [str(sequence - 1) for sequence in sequences]
    segments.publish(segments.prepare(Batch(ids, vectors, ["{}"] * len(ids)), sequences=sequences))
    return segments


def removed(segments: Segments, ids: Sequence[str]) -> None:
    """Delete them."""
    segments.publish(segments.prepare(removed=ids))


def nearest(
    vectors: NDArray[np.float32],
    metric: Metric,
    queries: NDArray[np.float32],
    top_k: int,
    kept: NDArray[np.bool_] | None = None,
) -> list[list[str]]:
    """Ids by brute force in float64."""
    wide, others = vectors.astype(np.float64), queries.astype(np.float64)
    if metric is Metric.L2:
        scores = 2 * others @ wide.T - np.einsum("nd,nd->n", wide, wide)
    else:
        scores = others @ wide.T
    if kept is not None:
        scores[:, ~kept] = -np.inf
    return [[str(number) for number in np.argsort(-line)[:top_k]] for line in scores]


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """The share of the truth that was found."""
    shares = [len(set(ids) & set(true)) / len(true) for ids, true in zip(found, truth, strict=True)]
    return float(np.mean(shares))
