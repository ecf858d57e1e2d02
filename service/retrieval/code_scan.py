"""Which rows' codes differ little from a query's? All heads are scanned, and the tails of those that pass.

A head of a quarter of the bits costs a third of a whole code; the tails of few rows cost next to nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from service.retrieval.columns import Mask
from service.retrieval.signs import MAX_BITS
from service.retrieval.tier import Tier

# Of heads scanned for one query after another: 2 MiB, which stay in the cache.
_TILE_BYTES = 2 * 1024 * 1024
# Queries whose limits are that near to each other are scanned for together.
_ALIKE_BITS = 6
_faiss: Any = faiss  # its stubs lack what is used here
_pointer = _faiss.swig_ptr
# The same for the sample.
_faiss.cvar.hamming_batch_size = 16_384


class Near(NamedTuple):
    """What is near some queries.

    Attributes:
        places: int64 [queries, rows] in the tier, by how much they differ; -1 behind the last.
        differing: int16, of the same shape: in how many bits.
        complete: bool [queries]: not more came close than were to be kept.
    """

    places: NDArray[np.int64]
    differing: NDArray[np.int16]
    complete: NDArray[np.bool_]


class _Found(NamedTuple):
    """Rows of which heads come close: of which query, where in the tier, in how many bits they differ."""

    owners: NDArray[np.int64]
    places: NDArray[np.int64]
    differing: NDArray[np.int16]

    def at(self, chosen: NDArray[np.int64]) -> "_Found":
        """Some of them."""
        owners, places, differing = self
        return _Found(owners.take(chosen), places.take(chosen), differing.take(chosen))


class CodeScan:
    """Scans of a tier for some queries. Runs in the calling thread alone, without the interpreter lock.

    Args:
        tier: whose codes are scanned.
        bits: uint8 [queries, bytes]: the queries' codes.
        findable: bool [rows of the tier]; None: all.
    """

    def __init__(self, tier: Tier, bits: NDArray[np.uint8], findable: Mask | None) -> None:
        self._tier, self._findable = tier, findable
        head_bytes = tier.codes.heads.shape[1]
        self._heads = np.ascontiguousarray(bits[:, :head_bytes])
        self._tails = np.ascontiguousarray(bits[:, head_bytes:]).view(np.uint64)
        self._tile_rows = _TILE_BYTES // head_bytes
        starts = range(0, len(tier.codes), self._tile_rows)
        self._selectors = [
            None if findable is None else _selector(findable[start : start + self._tile_rows])
            for start in starts
        ]

    def sampled(self, queries: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Places of the rows of the sample whose heads differ least, [queries, `count` or fewer].

        Args:
            queries: their numbers.
            count: at least 1.
        """
        step, sample = self._tier.sample_step, self._tier.sample
        selector = None
        if self._findable is not None:
            mask = self._findable[::step]
            selector = _selector(mask)
            count = min(count, int(np.count_nonzero(mask)))
        count = min(count, len(sample))
        heads = np.ascontiguousarray(self._heads[queries])
        differing = np.empty((len(heads), count), np.int32)
        places = np.empty(differing.shape, np.int64)
        if count:
            _faiss.hammings_knn_mc(
                *map(_pointer, (heads, sample)),
                len(heads), len(sample), count, sample.shape[1],
                *map(_pointer, (differing, places)), selector,
            )  # fmt: skip
        return places * step

    def within(
        self, queries: NDArray[np.int64], head_limits: NDArray[Any], limits: NDArray[Any], most: int
    ) -> Near:
        """Rows whose codes come close to those of some queries.

        Args:
            queries: their numbers.
            head_limits: [queries]: in how many bits a head may differ.
            limits: likewise a code.
            most: heads that may come close to one query.
        """
        order = np.argsort(head_limits, kind="stable")
        parts: list[_Found] = []
        passed = np.zeros(len(queries), np.int64)
        # FAISS takes one limit for all queries of a call, so those with similar ones go together.
        alike = np.flatnonzero(np.diff(head_limits[order] // _ALIKE_BITS)) + 1
        for group in np.split(order, alike):
            for found in self._near_heads(queries[group], head_limits[group]):
                found = found._replace(owners=group[found.owners])
                passed += np.bincount(found.owners, minlength=len(queries))
                if passed.max() > most:  # theirs are forgotten: that bounds the memory
                    found = found.at(np.flatnonzero((passed <= most)[found.owners]))
                found.differing[:] += self._tails_differing(queries[found.owners], found.places)
                parts.append(found.at(np.flatnonzero(found.differing <= limits[found.owners])))
        return Near(*_lines(len(queries), parts), passed <= most)

    def _near_heads(self, queries: NDArray[np.int64], limits: NDArray[Any]) -> Iterator[_Found]:
        """Rows whose heads come close, tile by tile; `owners` index `queries`."""
        asked, heads = np.ascontiguousarray(self._heads[queries]), self._tier.codes.heads
        radius = int(limits.max())
        for start, selector in zip(range(0, len(heads), self._tile_rows), self._selectors, strict=True):
            tile = heads[start : start + self._tile_rows]
            result = _faiss.RangeSearchResult(len(asked))
            _faiss.hamming_range_search(
                *map(_pointer, (asked, tile)),
                len(asked), len(tile), radius + 1, tile.shape[1], result, selector,
            )  # fmt: skip
            # These arrays are the result's, and go with it.
            counts = np.diff(_faiss.rev_swig_ptr(result.lims, len(asked) + 1).astype(np.int64))
            count = int(counts.sum())
            if count:
                differing = _faiss.rev_swig_ptr(result.distances, count).astype(np.int16)
                own = np.flatnonzero(differing <= np.repeat(limits, counts))
                places = _faiss.rev_swig_ptr(result.labels, count).take(own)
                places += start
                yield _Found(np.repeat(np.arange(len(asked)), counts)[own], places, differing[own])

    def _tails_differing(
        self, queries: NDArray[np.int64], places: NDArray[np.int64]
    ) -> NDArray[np.int16] | np.int16:
        """In how many bits the tails of those queries and rows differ, pair by pair."""
        if not self._tails.shape[1]:
            return np.int16(0)
        words = self._tier.codes.tails.view(np.uint64).take(places, axis=0)
        words ^= self._tails.take(queries, axis=0)
        counts = np.bitwise_count(words).T.astype(np.int16, order="C")
        return np.asarray(counts.sum(axis=0, dtype=np.int16))


def _lines(count: int, parts: list[_Found]) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """A line for each of so many queries, its rows by how much they differ; -1 behind the last."""
    if not parts:
        return np.empty((count, 0), np.int64), np.empty((count, 0), np.int16)
    owner, place, bits = map(np.concatenate, zip(*parts, strict=True))
    # Some queries' numbers and bits fit into 16 bits together: numpy sorts so short numbers by their digits.
    keys = owner * (MAX_BITS + 1) + bits
    order = np.argsort(keys.astype(np.min_scalar_type(count * (MAX_BITS + 1))), kind="stable")
    owner = owner[order]
    counts = np.bincount(owner, minlength=count)
    column = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (count, int(counts.max(initial=0)))
    all_places, all_bits = np.full(shape, -1, np.int64), np.zeros(shape, np.int16)
    all_places[owner, column], all_bits[owner, column] = place[order], bits[order]
    return all_places, all_bits


def _selector(mask: Mask) -> Any:
    return _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
