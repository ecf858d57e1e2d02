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


def candidates(pictures: Hashed, most_bits: int) -> list[int]:
    """Numbers of the pictures whose hash is near another one's, ascending."""
    near = np.zeros(len(pictures.seen), np.bool_)
    for pairs in near_pairs(_signs(pictures), most_bits):
        near[pairs.ravel()] = True
    return [int(number) for number in np.flatnonzero(near)]


def groups(
    pictures: Hashed, vectors: Mapping[str, NDArray[np.float32]], most_bits: int, threshold: float
) -> list[list[Member]]:
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
        return []
    normalised = unit(np.stack([vectors[pictures.ids[number]] for number in rows]))
    all_signs = _signs(pictures)[rows]
    forest = Groups(len(rows))
    for pairs in near_pairs(all_signs, most_bits):
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            left, right = pairs[start : start + _PAIRS_AT_ONCE].T
            cosines = np.einsum("ij,ij->i", normalised[left], normalised[right])
            for one, other in pairs[start : start + _PAIRS_AT_ONCE][cosines >= threshold].tolist():
                forest.join(one, other)
    return [_members(pictures, rows, normalised, group) for group in forest.several()]


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
