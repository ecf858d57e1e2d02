"""Vectors for retrieval benchmarks: 100 unit centres, noise of norm about 0.5 in a 64-d subspace of each."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
CENTERS, SUBSPACE, NOISE = 100, 64, 0.5
_SEED = 20_260
_BLOCK = 10_000


class Clusters:
    """A fixed distribution; what is drawn from it has length 1."""

    def __init__(self) -> None:
        random = np.random.default_rng(_SEED)
        self._centers = _unit(random.standard_normal((CENTERS, DIMENSION), np.float32))
        self._axes = _unit(random.standard_normal((CENTERS, SUBSPACE, DIMENSION), np.float32))

    def blocks(self, count: int, seed: int) -> Iterator[NDArray[np.float32]]:
        """Some thousands at a time: float32 [rows, 512]."""
        random = np.random.default_rng([_SEED, seed])
        for start in range(0, count, _BLOCK):
            rows = min(_BLOCK, count - start)
            chosen = random.integers(0, CENTERS, rows)
            noise = random.standard_normal((rows, SUBSPACE), np.float32) * (NOISE / SUBSPACE**0.5)
            vectors = self._centers[chosen]
            for center in range(CENTERS):
                here = chosen == center
                vectors[here] += noise[here] @ self._axes[center]
            yield _unit(vectors)

    def drawn(self, count: int, seed: int) -> NDArray[np.float32]:
        """float32 [count, 512]."""
        return np.concatenate(list(self.blocks(count, seed)))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors


def nearest(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    top_k: int,
    kept: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Row numbers int64 [queries, top_k] by brute force in float32."""
    scores = queries @ vectors.T
    if kept is not None:
        scores[:, ~kept] = -np.inf
    return np.argpartition(-scores, top_k, axis=1)[:, :top_k]
