"""Codes of one bit a direction: on which side of the vectors' mean does each random direction find a vector?

The share of bits in which two codes differ estimates the angle between the vectors, seen from the mean, over
π (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002). The directions are
orthogonal, or a tight frame where there are more of them than dimensions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.own_pages import own_pages

# Bits of a code: as many as dimensions, within these bounds. Short vectors get more, since codes of few bits
# tell little; beyond 1,024 further ones cost more of the scan than they save of the rescoring.
MIN_BITS, MAX_BITS = 256, 1024
_SEED = 20_020
# Of rotated vectors at once: 1 MiB, which stays in the cache.
_BLOCK_VALUES = 256 * 1024


@dataclass(frozen=True)
class Codes:
    """What is kept of some vectors.

    Attributes:
        heads: uint8 [rows, bytes]: the first bits, which are scanned for all rows.
        tails: uint8 [rows, bytes]: the others, perhaps none; whole words of 64 bits.
        lengths: float32 [rows]: distance from the mean.
        projections: float32 [rows]: inner product with the mean.
    """

    heads: NDArray[np.uint8]
    tails: NDArray[np.uint8]
    lengths: NDArray[np.float32]
    projections: NDArray[np.float32]

    @classmethod
    def room(cls, rows: int, bit_count: int, head_bits: int) -> Self:
        """For the codes of so many vectors."""
        return cls(
            own_pages((rows, head_bits // 8), np.uint8),
            own_pages((rows, (bit_count - head_bits) // 8), np.uint8),
            own_pages((rows,), np.float32),
            own_pages((rows,), np.float32),
        )

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def head_bits(self) -> int:
        """How many bits of a code are its head."""
        return 8 * int(self.heads.shape[1])

    def at(self, places: slice | NDArray[np.int64]) -> "Codes":
        """Of some of the vectors; of a slice without copying."""
        return Codes(self.heads[places], self.tails[places], self.lengths[places], self.projections[places])

    def set(self, places: slice | NDArray[np.int64], codes: "Codes") -> None:
        """Write those of some of the vectors."""
        self.heads[places], self.tails[places] = codes.heads, codes.tails
        self.lengths[places], self.projections[places] = codes.lengths, codes.projections


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

    def room(self, rows: int, head_bits: int) -> Codes:
        """For the codes of so many vectors."""
        return Codes.room(rows, self.bit_count, head_bits)

    def encode(self, vectors: NDArray[Any]) -> NDArray[np.uint8]:
        """The bits, uint8 [rows, bytes], of vectors [rows, dimension]; in the calling thread alone."""
        # Of each calling thread; FAISS's own BLAS follows it, numpy's doesn't.
        faiss.omp_set_num_threads(1)
        rotated = self._transform.apply(np.ascontiguousarray(vectors, np.float32))
        return np.packbits(rotated > 0, axis=1)

    def code(self, vectors: NDArray[Any], codes: Codes) -> None:
        """Write the codes of vectors [rows, dimension]; some rows at a time."""
        size = max(1, _BLOCK_VALUES // max(self.directions.shape))
        for start in range(0, len(vectors), size):
            part = slice(start, start + size)
            block = vectors[part].astype(np.float32)
            bits = self.encode(block)
            head_bytes = codes.heads.shape[1]
            codes.heads[part], codes.tails[part] = bits[:, :head_bytes], bits[:, head_bytes:]
            codes.projections[part] = np.einsum("nd,d->n", block, self.center)
            block -= self.center
            codes.lengths[part] = np.sqrt(np.einsum("nd,nd->n", block, block))


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

    def widest(
        self, queries: NDArray[np.int64], raw: NDArray[np.float32], lengths: tuple[float, float]
    ) -> NDArray[np.float64]:
        """The widest angle at which a vector may be as near, by distance, float64 [queries].

        Args:
            queries: their numbers.
            raw: float32 [queries]: minus squared distances.
            lengths: of the shortest and of the longest code there is.
        """
        own = self._lengths[queries]
        # By the law of cosines; a tangent to the ball around the query is the widest, if it isn't inside.
        tangent = own * own + raw
        far = np.maximum(np.clip(np.sqrt(np.maximum(tangent, 0)), *lengths), np.finfo(np.float32).tiny)
        cosines = (far * far + tangent) / (2 * far * np.maximum(own, np.finfo(np.float32).tiny))
        return np.asarray(np.arccos(np.clip(cosines, -1, 1)) / np.pi)
