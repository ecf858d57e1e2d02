"""Random items, filters and options of one number each, for the tests against brute force.

Hypothesis draws the numbers: were it to draw all of this itself, it would mostly make almost none of it.
"""

import random
from typing import TypeVar

from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from service.retrieval.index import GroupBy, SearchOptions
from service.retrieval.schema import AttributeType, AttributeValue

T = TypeVar("T")
DIMENSION = 3
IDS = [*(f"id-{n}" for n in range(25)), "é", "e\u0301", "日本", "\x01"]
SCHEMA = {
    "label": AttributeType.STRING,
    "size": AttributeType.INT,
    "ratio": AttributeType.FLOAT,
    "good": AttributeType.BOOL,
}
# Few, so that items share them and filters hit them.
VALUES: dict[str, list[AttributeValue]] = {
    "label": ["", "a", "b", "é", "\ufffd", "\U0001f5bc"],
    "size": [0, 1, 2, -(2**63), 2**63 - 1, 2**53, 2**53 + 1],
    "ratio": [0.0, -1.5, 1, 1e300, 2**53 + 1],
    "good": [True, False],
}
_OTHERS: list[AttributeValue] = ["", 'text "\n\x00日本', 0, -(2**63), 5e-324, -0.0, 1e22, True, "1"]
_LEAVES = ("equals", "in", "exists", "range")


class Draw:
    """What one number stands for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one_of(self, values: list[T]) -> T:
        """Any of them."""
        return self._random.choice(values)

    def ids(self) -> list[str]:
        """Some, perhaps one of them twice."""
        return self._random.choices(IDS, k=self._random.randint(0, 12))

    def excluded(self) -> str | None:
        """One, or mostly none."""
        return self._random.choice([None, None, self._random.choice(IDS)])

    def vector(self) -> list[float]:
        """Mostly small whole numbers, which give ties; never zero. float16 holds them all."""
        whole = self._random.random() < 0.8
        while True:
            values = [
                float(self._random.randint(-2, 2)) if whole else round(self._random.gauss(0, 1) * 64) / 8
                for _ in range(DIMENSION)
            ]
            if any(values):
                scale = self._random.choice([1.0, 1.0, 1.0, 2.0**9, 2.0**-9])
                return [value * scale for value in values]

    def attributes(self) -> dict[str, AttributeValue]:
        """Of each declared one a value or none, and perhaps one that isn't declared."""
        drawn = {name: self._random.choice(values) for name, values in VALUES.items()}
        kept = {name: value for name, value in drawn.items() if self._random.random() < 0.7}
        if self._random.random() < 0.3:
            kept[self._random.choice(["other", "数字"])] = self._random.choice(_OTHERS)
        return kept

    def rows(self) -> list[tuple[str, list[float], dict[str, AttributeValue]]]:
        """Ids, vectors and attributes; perhaps some of one id."""
        return [(name, self.vector(), self.attributes()) for name in self.ids()]

    def condition(self, depth: int = 3) -> Filter:
        """A tree of at most so many levels."""
        kind = self._random.choice((*_LEAVES, "and", "or", "not") if depth > 1 else _LEAVES)
        if kind == "not":
            return Not(self.condition(depth - 1))
        if kind in ("and", "or"):
            parts = tuple(self.condition(depth - 1) for _ in range(self._random.randint(0, 3)))
            return And(parts) if kind == "and" else Or(parts)
        name = self._random.choice(list(SCHEMA))
        if kind == "exists":
            return Exists(name)
        if kind == "in":
            return In(name, tuple(self._random.choices(VALUES[name], k=self._random.randint(0, 3))))
        if kind == "range" and name != "good":
            sides = self._random.sample(["gt", "gte", "lt", "lte"], self._random.randint(1, 2))
            return Range(name, **{side: self._random.choice(VALUES[name]) for side in sides})
        return Equals(name, self._random.choice(VALUES[name]))

    def options(self) -> SearchOptions:
        """Each of them in half of all searches."""
        toss = [self._random.random() < 0.5 for _ in range(4)]
        groups = GroupBy(self._random.choice(list(SCHEMA)), self._random.randint(1, 2))
        return SearchOptions(
            filter=self.condition() if toss[0] else None,
            min_score=self._random.randint(-12, 12) / 3 if toss[1] else None,
            group_by=groups if toss[2] else None,
            offset=self._random.randint(0, 6) if toss[3] else 0,
            recall=self._random.choice([0.98, 1.0]),
        )

    def top_k(self) -> int:
        """Less than there are items, or more."""
        return self._random.choice([1, 2, 5, 30])
