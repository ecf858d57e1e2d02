"""Pictures with several labels each, divided so that every part gets its share of every class.

K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011: the class
with the fewest pictures left is dealt out first, each picture to the part that lacks most of it.
"""

from collections.abc import Callable, Sequence

from training.errors import DataError
from training.splits import digest_of, group, quotas, too_few


def stratify(
    labels: Sequence[tuple[int, ...]],
    keys: Sequence[str],
    shares: Sequence[float],
    name: Callable[[int], str],
    contents: Sequence[bytes],
    where: str = "",
) -> list[list[int]]:
    """Like `splits.partition`, of pictures with any number of classes each.

    The order in which a class's pictures are dealt out is that of a hash of their keys, so the same keys and
    labels always give the same parts. A part may miss a class that is rare and always stands with others.

    Args:
        labels: classes of each picture; copies have the same.
        keys, shares, contents: as `splits.partition`.
        name: class index → what to call it in an error.
        where: said after the class's name in an error.

    Returns:
        For each part the indices of its pictures, ascending.

    Raises:
        DataError: a class has fewer different pictures than there are parts; too rare ones are counted.
    """
    units = sorted(
        group(contents).values(), key=lambda members: min(digest_of(keys[member]) for member in members)
    )
    waiting: dict[int, list[int]] = {}
    for unit, members in enumerate(units):
        for label in labels[members[0]]:
            waiting.setdefault(label, []).append(unit)
    least = len(shares) + 1
    rare = [label for label, having in sorted(waiting.items()) if len(having) < least]
    if rare:
        others = f" ({len(rare) - 1} more classes have fewer than {least})" if len(rare) > 1 else ""
        first = too_few(f"{name(rare[0])!r}{where}", len(waiting[rare[0]]), least)
        raise DataError(f"{first}{others}")
    lacking = {label: quotas(len(having), shares) for label, having in waiting.items()}
    # Too few pictures for all parts have no class among them, or the check above would have refused them.
    lacking_at_all = quotas(max(len(units), least), shares)
    left = {label: len(having) for label, having in waiting.items()}
    part_of = [-1] * len(units)

    def deal(unit: int, wish: Sequence[int]) -> None:
        # The last part is the largest; of parts that lack as much the earlier one takes it.
        part = max(range(len(wish)), key=lambda index: (wish[index], lacking_at_all[index], -index))
        part_of[unit] = part
        lacking_at_all[part] -= 1
        for label in labels[units[unit][0]]:
            lacking[label][part] -= 1
            left[label] -= 1

    while waiting:
        rarest = min(waiting, key=lambda label: (left[label], label))
        for unit in waiting.pop(rarest):
            if part_of[unit] < 0:
                deal(unit, lacking[rarest])
    for unit, part in enumerate(part_of):
        if part < 0:  # without any class
            deal(unit, lacking_at_all)
    parts: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    for members, part in zip(units, part_of, strict=True):
        parts[part] += members
    return [sorted(part) for part in parts]
