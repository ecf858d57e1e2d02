"""What an index must answer, by brute force over dictionaries."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.retrieval.filters import Filter, matches
from service.retrieval.index import CollectionSpec, Metric, Neighbor, SearchOptions, Storage
from service.retrieval.schema import AttributeType, AttributeValue


@dataclass(frozen=True)
class Row:
    """An item as it was given: [dimension], float32 numbers."""

    vector: NDArray[np.float64]
    attributes: Mapping[str, AttributeValue]


class Model:
    """A collection: its items in the order of writing."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec
        self.rows: dict[str, Row] = {}

    def upsert(self, batch: Mapping[str, Row]) -> None:
        for name, row in batch.items():
            self.rows.pop(name, None)
            attributes = dict(row.attributes)
            for key in attributes.keys() & self.spec.attributes.keys():
                if self.spec.attributes[key] is AttributeType.FLOAT:
                    attributes[key] = float(attributes[key])
            self.rows[name] = Row(row.vector, attributes)

    def kept(self, condition: Filter | None) -> list[str]:
        return [n for n, row in self.rows.items() if condition is None or matches(condition, row.attributes)]

    def stored(self, name: str) -> NDArray[np.float64]:
        vector = self.normalised(self.rows[name].vector).astype(np.float32)
        if self.spec.storage is Storage.FLOAT16:
            vector = vector.astype(np.float16)
        return vector.astype(np.float64)

    def normalised(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return vector / np.linalg.norm(vector) if self.spec.metric is Metric.COSINE else vector

    def check(
        self,
        query: NDArray[np.float64],
        top_k: int,
        options: SearchOptions,
        excluded: str | None,
        given: list[Neighbor],
        *,
        exact: bool,
    ) -> None:
        """See that these may be the neighbours; of an exact engine, that they are, in this order.

        Where scores differ by less than rounding, their order isn't told by them.
        """
        names = [name for name in self.kept(options.filter) if name != excluded]
        query = self.normalised(query)
        truth = {name: self._score(name, query) for name in names}
        tolerance = max((self._tolerance(name, query) for name in names), default=0.0)
        written = {name: number for number, name in enumerate(names)}
        ranked = sorted(names, key=lambda name: (-truth[name], written[name]))
        floor = options.min_score
        near = [name for name in ranked if floor is None or truth[name] >= floor]
        expected = self._diverse(near, options)[options.offset : options.offset + top_k]
        ids = [neighbor.id for neighbor in given]

        # What holds of every engine.
        assert len(set(ids)) == len(ids) <= top_k
        assert set(ids) <= set(names)
        scores = np.array([neighbor.score for neighbor in given])
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, [truth[name] for name in ids], rtol=0, atol=tolerance)
        assert floor is None or (scores >= floor).all()
        assert self._diverse(ids, options) == ids
        for neighbor in given:
            same_attributes(neighbor.attributes, self.rows[neighbor.id].attributes)

        told = self._told_apart(query, ranked, truth, tolerance, floor)
        if exact and told:
            assert ids == expected
        elif options.group_by is None:
            if exact and (floor is None or all(abs(value - floor) > tolerance for value in truth.values())):
                assert len(ids) == len(expected)
                np.testing.assert_allclose(scores, [truth[n] for n in expected], rtol=0, atol=2 * tolerance)
            elif expected and options.offset == 0:
                found = sum(truth[name] >= truth[expected[-1]] - tolerance for name in ids)
                assert found >= 0.9 * len(expected) - 1  # the recall

    def _score(self, name: str, query: NDArray[np.float64]) -> float:
        vector = self.stored(name)
        if self.spec.metric is Metric.L2:
            return -float(np.linalg.norm(vector - query))
        score = float(vector @ query)
        return min(1.0, max(-1.0, score)) if self.spec.metric is Metric.COSINE else score

    def _tolerance(self, name: str, query: NDArray[np.float64]) -> float:
        lengths = np.linalg.norm(self.stored(name)), np.linalg.norm(query)
        return 1e-5 + 1e-6 * float(sum(lengths) if self.spec.metric is Metric.L2 else np.prod(lengths))

    def _diverse(self, names: list[str], options: SearchOptions) -> list[str]:
        if options.group_by is None:
            return names
        members: Counter[AttributeValue] = Counter()
        diverse = []
        for name in names:
            group = self.rows[name].attributes.get(options.group_by.attribute)
            if group is not None:
                members[group] += 1
            if group is None or members[group] <= options.group_by.max_per_group:
                diverse.append(name)
        return diverse

    def _told_apart(
        self,
        query: NDArray[np.float64],
        ranked: list[str],
        truth: Mapping[str, float],
        tolerance: float,
        floor: float | None,
    ) -> bool:
        """Whether neighbours in rank, and the floor, differ by more than rounding, or not at all."""
        vectors = [query, *(self.rows[name].vector for name in ranked)]
        whole = self.spec.metric is not Metric.COSINE and all((v == np.round(v)).all() for v in vectors)
        for one, other in pairwise(ranked):
            equal = truth[one] == truth[other] and whole
            same = (self.rows[one].vector == self.rows[other].vector).all()
            if not equal and not same and truth[one] - truth[other] <= 2 * tolerance:
                return False
        return floor is None or all(
            abs(value - floor) > tolerance or (whole and value == floor) for value in truth.values()
        )


def same_attributes(given: Mapping[str, AttributeValue], expected: Mapping[str, AttributeValue]) -> None:
    """Values and types."""
    assert given == expected
    assert all(type(given[name]) is type(value) for name, value in expected.items())
