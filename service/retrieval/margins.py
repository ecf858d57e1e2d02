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
# Fewer rows are too few to measure on.
MIN_ROWS = 256
_QUERIES = 128
# Fewer neighbours are looked for as if it were so many: how near the nearest alone is says too little about
# the others, most of all by inner product, where it may be a long vector at a wide angle.
LEAST_TOP_K = 10
_USUAL_Z = 1.7
_MOST_ROWS = 32_768
_ROWS_AT_ONCE = 1024
# Heads to choose from, besides whole codes.
_HEAD_BITS = (128, 256)
# Added to z for heads: the rows near the limit that they lose must be few beside those that z loses.
_HEAD_Z = 0.5
# What a row costs whose head has passed, measured: its tail is looked up.
_PASSED_NS = 40.0
_faiss: Any = faiss  # its stubs lack what is used here


@dataclass(frozen=True)
class Margins:
    """Measured on one collection.

    Attributes:
        zs: for each of `RECALLS`, rising.
        scored_share: of the rows that these queries would have had scored at a usual z, the median.
        head_bits: of a code's bits so many are scanned first, which costs least.
    """

    zs: tuple[float, ...]
    scored_share: float
    head_bits: int

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


def head_bits_within(angles: NDArray[np.float64], z: float, head_bits: int) -> NDArray[np.float64]:
    """In how many bits a code's head may differ, so that few are missed that the whole code would tell of."""
    return np.ceil(bits_within(angles, z + _HEAD_Z, head_bits))


def first_scored(top_k: int) -> int:
    """How many candidates are scored before anything is known about a query."""
    return max(192, 2 * top_k)


def measured(rows: Rows, metric: Metric, coder: SignCoder) -> Margins:
    """Search for some of the rows among the others, by codes and exactly.

    Args:
        rows: of which `MIN_ROWS` at least may be found.
        metric: of the collection.
        coder: makes the codes.
    """
    random = np.random.default_rng(rows.live)
    numbers = rows.numbers
    if len(numbers) > _MOST_ROWS:
        numbers = np.sort(random.choice(numbers, _MOST_ROWS, replace=False))
    codes = _codes_of(rows, numbers, coder)
    own = np.sort(random.choice(len(numbers), min(_QUERIES, len(numbers)), replace=False))
    queries = rows.gather(numbers[own])
    angles = Angles(coder, metric, queries)
    needed: list[NDArray[np.float64]] = []
    shares = []
    sizes = [bits for bits in _HEAD_BITS if bits < coder.bit_count] + [coder.bit_count]
    heads = {bits: np.ascontiguousarray(codes.heads[:, : bits // 8]) for bits in sizes}
    passed: dict[int, list[float]] = {bits: [] for bits in sizes}
    faiss.omp_set_num_threads(1)
    for line, (place, query) in enumerate(zip(own.tolist(), queries, strict=True)):
        counts = {bits: _differing(head, head[place]) for bits, head in heads.items()}
        differing = counts[coder.bit_count].astype(np.float64)
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
        for bits, count in counts.items():
            least = head_bits_within(angle, _USUAL_Z, bits)
            passed[bits].append(np.count_nonzero(count <= least) / len(numbers))
    # So little of what may be missed is measured on the collection's own vectors: the rest is left to queries
    # unlike them, and where lengths matter most, to a few long vectors.
    part = 4 if metric is Metric.INNER_PRODUCT else 2
    zs = np.quantile(np.concatenate(needed), [1 - (1 - recall) / part for recall in RECALLS])
    head_bits = min(sizes, key=lambda bits: _scan_ns(bits) + _PASSED_NS * float(np.mean(passed[bits])))
    return Margins(tuple(zs.tolist()), float(np.median(shares)), head_bits)


def _codes_of(rows: Rows, numbers: NDArray[np.int64], coder: SignCoder) -> Codes:
    """Of some rows; all bits in the heads."""
    codes = coder.room(len(numbers), coder.bit_count)
    for start in range(0, len(numbers), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        coder.code(rows.gather(numbers[part]), codes.at(part))
    return codes


def _scan_ns(head_bits: int) -> float:
    """Of one row and query (measured at 128, 256 and 512 bits: 1.0, 1.5 and 2.8)."""
    return 0.4 + 0.0047 * head_bits


def _differing(codes: NDArray[np.uint8], code: NDArray[np.uint8]) -> NDArray[np.int32]:
    counts = np.empty(len(codes), np.int32)
    own = np.ascontiguousarray(code)
    pointer = _faiss.swig_ptr
    _faiss.hammings(pointer(own), pointer(codes), 1, len(codes), codes.shape[1], pointer(counts))
    return counts
