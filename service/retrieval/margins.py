"""How far a near vector's code may be off: what decides how many candidates are scored exactly.

Let a query's k-th best score so far belong to the angle p (a share of π). The code of a vector at that angle
differs from the query's in about p·b of b bits, give or take the deviation of a binomial, √(b·p·(1 − p)).
So all vectors whose codes differ in at most p·b + z·√(b·p·(1 − p)) bits are scored, and one as near as the
k-th is among them with the probability that z stands for in the normal distribution; nearer ones more surely.
That holds for any query, however few or many vectors are near it.

Where vectors differ much in length, a score says little about the angle (most of all inner products). So z is
also measured, on the collection's own vectors as queries, and the larger of both counts.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.raw import raw_of
from service.retrieval.rows import Rows
from service.retrieval.signs import Angles, Codes, SignCoder

# The shares of near vectors to be found for which z is kept.
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_QUERIES = 128
# Fewer neighbours are looked for as if it were so many: how near the nearest alone is says too little about
# the others, most of all by inner product, where it may be a long vector at a wide angle.
LEAST_TOP_K = 10
_USUAL_Z = 1.7
_MOST_ROWS = 32_768
_faiss: Any = faiss  # its stubs lack what is used here


@dataclass(frozen=True)
class Margins:
    """Measured on one collection.

    Attributes:
        zs: for each of `RECALLS`, rising.
        scored_share: of the rows that these queries would have had scored at a usual z, the median.
    """

    zs: tuple[float, ...]
    scored_share: float

    def z(self, recall: float) -> float:
        """What it takes to find this share, above 0 and below 1, of the nearest vectors."""
        # Most of ten and more are nearer than the last, and so more surely scored: together they miss less
        # than half of what the last does (measured: a quarter).
        theory = NormalDist().inv_cdf(max(1 - 2 * (1 - recall), 0.5))
        pairs = zip(RECALLS, self.zs, strict=True)
        return max(theory, next((z for share, z in pairs if share >= recall), self.zs[-1]))


def bits_within(angles: NDArray[np.float64], z: float, bit_count: int) -> NDArray[np.float64]:
    """In how many bits a code may differ and still be scored, for each angle."""
    return bit_count * angles + z * np.sqrt(bit_count * angles * (1 - angles))


def first_scored(top_k: int) -> int:
    """How many candidates are scored before anything is known about a query."""
    return max(128, 2 * top_k)


def measured(rows: Rows, metric: Metric, coder: SignCoder, all_codes: Codes) -> Margins:
    """Search for some of the rows among the others, by codes and exactly.

    Args:
        rows: of which some hundreds at least may be found.
        metric: of the collection.
        coder: made the codes.
        all_codes: of all rows, by row number.
    """
    random = np.random.default_rng(rows.live)
    numbers = rows.numbers
    if len(numbers) > _MOST_ROWS:
        numbers = np.sort(random.choice(numbers, _MOST_ROWS, replace=False))
    codes = all_codes.at(numbers)
    own = np.sort(random.choice(len(numbers), min(_QUERIES, len(numbers)), replace=False))
    queries = rows.gather(numbers[own])
    angles = Angles(coder, metric, queries)
    needed: list[NDArray[np.float64]] = []
    shares = []
    faiss.omp_set_num_threads(1)
    for line, (place, query) in enumerate(zip(own.tolist(), queries, strict=True)):
        differing = _differing(codes.bits, codes.bits[place]).astype(np.float64)
        raw = raw_of(rows, metric, query[None], numbers[None])[0]
        differing[place], raw[place] = np.inf, -np.inf  # a query doesn't find itself
        scored = first_scored(LEAST_TOP_K)
        first = np.argpartition(differing, scored)[:scored]
        nearest = first[np.argpartition(-raw[first], LEAST_TOP_K)[:LEAST_TOP_K]]
        angle = angles.of(line, raw[nearest], codes.lengths[nearest], codes.projections[nearest]).max()
        deviation = float(np.sqrt(coder.bit_count * angle * (1 - angle))) or 1.0
        truth = np.argpartition(-raw, LEAST_TOP_K)[:LEAST_TOP_K]
        needed.append((differing[truth] - coder.bit_count * angle) / deviation)
        least = bits_within(angle, _USUAL_Z, coder.bit_count)
        shares.append(np.count_nonzero(differing <= least) / len(numbers))
    # So little of what may be missed is measured on the collection's own vectors: the rest is left to queries
    # unlike them, and where lengths matter most, to a few long vectors.
    part = 4 if metric is Metric.INNER_PRODUCT else 2
    zs = np.quantile(np.concatenate(needed), [1 - (1 - recall) / part for recall in RECALLS])
    return Margins(tuple(zs.tolist()), float(np.median(shares)))


def _differing(codes: NDArray[np.uint8], code: NDArray[np.uint8]) -> NDArray[np.int32]:
    counts = np.empty(len(codes), np.int32)
    own = np.ascontiguousarray(code)
    pointer = _faiss.swig_ptr
    _faiss.hammings(pointer(own), pointer(codes), 1, len(codes), codes.shape[1], pointer(counts))
    return counts
