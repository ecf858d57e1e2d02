"""Codes of one bit a direction: on which side of the vectors' mean does each random direction find a vector?

The share of bits in which two codes differ estimates the angle between the vectors, seen from the mean, over
π (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002). The directions are
orthogonal, or a tight frame where there are more of them than dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric

# Bits of a code: as many as dimensions, within these bounds. Short vectors get more, since codes of few bits
# tell little; beyond 1,024 further ones cost more of the scan than they save of the rescoring.
MIN_BITS, MAX_BITS = 256, 1024
_SEED = 20_020
# Of rotated vectors at once: 8 MiB.
_BLOCK_VALUES = 2 * 1024 * 1024


@dataclass(frozen=True)
class Codes:
    """What is kept of some vectors.

    Attributes:
        bits: uint8 [rows, bytes].
        lengths: float32 [rows]: distance from the mean.
        projections: float32 [rows]: inner product with the mean.
    """

    bits: NDArray[np.uint8]
    lengths: NDArray[np.float32]
    projections: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.bits)


@dataclass(frozen=True)
class SignCoder:
    """Makes codes.

    Attributes:
        center: float32 [dimension]: the mean.
        directions: float32 [bits, dimension].
    """

    center: NDArray[np.float32]
    directions: NDArray[np.float32]

    @classmethod
    def around(cls, center: NDArray[np.float32]) -> Self:
        """A coder with directions of a fixed seed."""
        dimension = len(center)
        bits = min(max(-(-dimension // 64) * 64, MIN_BITS), MAX_BITS)
        faiss.omp_set_num_threads(1)
        rotation = faiss.RandomRotationMatrix(dimension, bits)
        rotation.init(_SEED)
        return cls(center, faiss.vector_to_array(rotation.A).reshape(bits, dimension))

    @property
    def bit_count(self) -> int:
        """Of a code; a multiple of 64."""
        return len(self.directions)

    @cached_property
    def squared_norm(self) -> float:
        """Of the mean."""
        wide = self.center.astype(np.float64)
        return float(wide @ wide)

    @cached_property
    def _transform(self) -> Any:
        transform = faiss.LinearTransform(self.directions.shape[1], self.bit_count, True)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.directions).ravel(), transform.A)
        faiss.copy_array_to_vector(-(self.directions @ self.center), transform.b)
        transform.is_trained = True
        return transform

    def encode(self, vectors: NDArray[Any]) -> NDArray[np.uint8]:
        """The bits, uint8 [rows, bytes], of vectors [rows, dimension]; in the calling thread alone."""
        # Of each calling thread; FAISS's own BLAS follows it, numpy's doesn't.
        faiss.omp_set_num_threads(1)
        bits = np.empty((len(vectors), self.bit_count // 8), np.uint8)
        for part in self._blocks(len(vectors)):
            rotated = self._transform.apply(np.ascontiguousarray(vectors[part], np.float32))
            bits[part] = np.packbits(rotated > 0, axis=1)
        return bits

    def codes(self, vectors: NDArray[Any]) -> Codes:
        """All that is kept of vectors [rows, dimension]."""
        lengths, projections = (np.empty(len(vectors), np.float32) for _ in range(2))
        for part in self._blocks(len(vectors)):
            block = vectors[part].astype(np.float32)
            projections[part] = np.einsum("nd,d->n", block, self.center)
            block -= self.center
            lengths[part] = np.sqrt(np.einsum("nd,nd->n", block, block))
        return Codes(self.encode(vectors), lengths, projections)

    def _blocks(self, rows: int) -> Iterator[slice]:
        size = max(1, _BLOCK_VALUES // max(self.directions.shape))
        for start in range(0, rows, size):
            yield slice(start, start + size)


class Angles:
    """Angles at the mean, as shares of π, between queries and vectors of known scores."""

    def __init__(self, coder: SignCoder, metric: Metric, queries: NDArray[np.float32]) -> None:
        self._coder, self._metric = coder, metric
        wide, center = queries.astype(np.float64), coder.center.astype(np.float64)
        seen = wide - center
        self._lengths = np.sqrt(np.einsum("nd,nd->n", seen, seen))
        self._projections = wide @ center

    def of(
        self,
        query: int | NDArray[np.int64],
        raw: NDArray[np.float32],
        lengths: NDArray[np.float32],
        projections: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """float64 [rows], 0 to 1.

        Args:
            query: the number of each row's query, or of the only one.
            raw: float32 [rows]: inner products, or minus squared distances where the metric is L2.
            lengths: of the rows' codes.
            projections: likewise.
        """
        own, far = self._lengths[query], lengths.astype(np.float64)
        if self._metric is Metric.L2:
            inner = (raw + far * far + own * own) / 2
        else:
            inner = raw.astype(np.float64) - projections - self._projections[query] + self._coder.squared_norm
        cosines = inner / np.maximum(far * own, np.finfo(np.float32).tiny)
        return np.asarray(np.arccos(np.clip(cosines, -1, 1)) / np.pi)
