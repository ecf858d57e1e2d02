"""Groups of near-duplicates: pairs whose hashes are close, confirmed by the cosine of their vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cli.bulk.entry import TarMember
from service.cli.quality.candidates import Hashed
from service.cli.quality.evaluation import unit
from service.cli.quality.near_pairs import Groups, near_pairs
from service.cli.quality.perceptual_hash import Seen, signs

_PAIRS_AT_ONCE = 4096
NEARLY_EQUAL_BITS = 2
"""Hashes this near are seldom of different pictures, whatever the cosine says."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class Member:
    """One picture of a group.

    Attributes:
        id: of its item, or its path inside the folder.
        place: its file.
        seen: its size and hash.
        bits: in how many its hash differs from that of the group's first.
        cosine: of its vector and that of the group's first.
    """

    id: str
    place: Path | TarMember
    seen: Seen
    bits: int
    cosine: float


@dataclass(frozen=True)
class Found:
    """What was found among pictures.

    Attributes:
        groups: of near-duplicates, the largest first; the first member of each is the one to keep.
        left_out: how many further pairs have nearly equal hashes, but a lower cosine.
        highest: the few of these with the highest cosine.
    """

    groups: list[list[Member]]
    left_out: int
    highest: list[list[Member]]


def candidates(pictures: Hashed, most_bits: int) -> list[int]:
    """Numbers of the pictures whose hash is near another one's, ascending."""
    near = np.zeros(len(pictures.seen), np.bool_)
    for pairs in near_pairs(_signs(pictures), most_bits):
        near[pairs.ravel()] = True
    return [int(number) for number in np.flatnonzero(near)]


def groups(
    pictures: Hashed, vectors: Mapping[str, NDArray[np.float32]], most_bits: int, threshold: float
) -> Found:
    """What hangs together by pairs that pass both tests: the largest group first.

    The first member of a group has the most pixels, then the most bytes: the one to keep. As pairs make
    chains, another may be further from it than the limits.

    Args:
        pictures: all of them.
        vectors: of the candidates at least; those without one are left out.
        most_bits: in which a pair's hashes may differ.
        threshold: the least cosine of a pair.
    """
    rows = [number for number, name in enumerate(pictures.ids) if name in vectors]
    if not rows:
        return Found([], 0, [])
    normalised = unit(np.stack([vectors[pictures.ids[number]] for number in rows]))
    all_signs = _signs(pictures)[rows]
    forest = Groups(len(rows))
    for pairs in near_pairs(all_signs, most_bits):
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            left, right = pairs[start : start + _PAIRS_AT_ONCE].T
            cosines = np.einsum("ij,ij->i", normalised[left], normalised[right])
            for one, other in pairs[start : start + _PAIRS_AT_ONCE][cosines >= threshold].tolist():
                forest.join(one, other)
    left_out, highest = _left_out(all_signs, normalised, forest, most_bits)
    return Found(
        [_members(pictures, rows, normalised, group) for group in forest.several()],
        left_out,
        [_members(pictures, rows, normalised, pair) for pair in highest],
    )


def _left_out(
    all_signs: NDArray[np.float32], normalised: NDArray[np.float32], forest: Groups, most_bits: int
) -> tuple[int, list[list[int]]]:
    """How many pairs of nearly equal hashes aren't in one group, and those with the highest cosines."""
    roots = np.array([forest.find(element) for element in range(len(all_signs))])
    count = 0
    best: list[tuple[float, int, int]] = []
    for pairs in near_pairs(all_signs, min(most_bits, NEARLY_EQUAL_BITS)):
        apart = pairs[roots[pairs[:, 0]] != roots[pairs[:, 1]]]
        count += len(apart)
        for start in range(0, len(apart), _PAIRS_AT_ONCE):
            left, right = apart[start : start + _PAIRS_AT_ONCE].T
            cosines = np.einsum("ij,ij->i", normalised[left], normalised[right])
            highest = np.argsort(-cosines, kind="stable")[:_MOST_NAMED].tolist()
            best += [(-float(cosines[each]), int(left[each]), int(right[each])) for each in highest]
            best = sorted(best)[:_MOST_NAMED]
    return count, [[one, other] for _, one, other in best]


def _members(
    pictures: Hashed, rows: Sequence[int], normalised: NDArray[np.float32], group: Sequence[int]
) -> list[Member]:
    def importance(element: int) -> tuple[int, int, str]:
        seen = pictures.seen[rows[element]]
        return -seen.width * seen.height, -seen.size_bytes, pictures.ids[rows[element]]

    ordered = sorted(group, key=importance)
    first = ordered[0]
    return [
        Member(
            id=pictures.ids[rows[element]],
            place=pictures.places[rows[element]],
            seen=pictures.seen[rows[element]],
            bits=(pictures.seen[rows[element]].bits ^ pictures.seen[rows[first]].bits).bit_count(),
            cosine=min(1.0, float(normalised[element] @ normalised[first])),
        )
        for element in ordered
    ]


def _signs(pictures: Hashed) -> NDArray[np.float32]:
    return signs([seen.bits for seen in pictures.seen])
