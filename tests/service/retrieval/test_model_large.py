"""Every engine with so many items that it may search approximately, against brute force.

Exact where all of the recall is asked for; else by recall, and never an item that was deleted or that the
filter leaves out.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.retrieval.filters import Equals, Filter, Not, Range
from service.retrieval.index import (
    CollectionSpec,
    GroupBy,
    Index,
    Item,
    Metric,
    Neighbor,
    SearchOptions,
    Storage,
)
from service.retrieval.schema import AttributeType
from tests.service.retrieval.conftest import EXAMPLES, LARGE_ENGINES, MEMORY
from tests.service.retrieval.model import Model, Row

DIMENSION = 24
# Cosines of vectors that float16 rounded are of length 1 ± 0.0005, and may be told either way.
TOLERANCE = 1e-3
SCHEMA = {"n": AttributeType.INT, "cluster": AttributeType.STRING}
STEPS = st.lists(
    st.sampled_from(["upsert", "upsert", "delete", "delete_matching", "flush", "reopen"]),
    min_size=3,
    max_size=7,
)
FILTERS: list[Filter | None] = [
    None,
    Range("n", lt=10),
    Range("n", gte=500),
    Equals("cluster", "3"),
    Not(Equals("cluster", "3")),
]


class Runner:
    """An engine and its model, driven by one generator of random numbers."""

    def __init__(self, engine: str, folder: Path, metric: Metric, storage: Storage, seed: int) -> None:
        self._open, self._folder = LARGE_ENGINES[engine], folder
        self.index: Index = self._open(folder)
        self._rng = np.random.default_rng(seed)
        self._centres = self._rng.standard_normal((8, DIMENSION))
        self._model = Model(CollectionSpec("photos", DIMENSION, metric, "", SCHEMA, storage))
        self.index.create(self._model.spec)
        self.upsert(900)

    def vectors(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Around the centres; which of them."""
        clusters = self._rng.integers(0, len(self._centres), count)
        noise = self._rng.standard_normal((count, DIMENSION)) * 0.3
        return (self._centres[clusters] + noise).astype(np.float32), clusters

    def upsert(self, count: int = 300) -> None:
        """New ones and some that are there."""
        vectors, clusters = self.vectors(count)
        numbers = self._rng.choice(1500, count, replace=False).tolist()
        rows = {
            f"id-{n}": Row(vector.astype(np.float64), {"n": n, "cluster": str(cluster)})
            for n, vector, cluster in zip(numbers, vectors, clusters.tolist(), strict=True)
        }
        items = zip(rows.items(), vectors, strict=True)
        self.index.upsert("photos", [Item(name, v, row.attributes) for (name, row), v in items])
        self._model.upsert(rows)

    def delete(self) -> None:
        names = self._rng.choice(list(self._model.rows), len(self._model.rows) // 4, replace=False).tolist()
        assert self.index.delete("photos", names) == len(names)
        for name in names:
            del self._model.rows[name]

    def delete_matching(self) -> None:
        first = int(self._rng.integers(0, 1400))
        condition = Range("n", gte=first, lt=first + 100)
        gone = self._model.kept(condition)
        assert self.index.delete_matching("photos", condition) == len(gone)
        for name in gone:
            del self._model.rows[name]

    def flush(self) -> None:
        self.index.flush("photos")

    def reopen(self) -> None:
        self.index.close()
        self.index = self._open(self._folder)

    def check(self) -> None:
        """Searches of all kinds."""
        model = self._model
        stored = {name: model.stored(name) for name in model.rows}
        queries, _ = self.vectors(6)
        wide = [model.normalised(query.astype(np.float64)) for query in queries]
        for condition in FILTERS:
            kept = model.kept(condition)
            assert self.index.count("photos", condition) == len(kept)
            vectors = np.stack([stored[name] for name in kept]) if kept else np.zeros((0, DIMENSION))
            truths = [self._scores(vectors, query) for query in wide]
            for recall, groups in ((1.0, None), (0.98, None), (0.98, GroupBy("cluster", 2))):
                options = SearchOptions(filter=condition, recall=recall, group_by=groups)
                results = self.index.search("photos", queries, 10, options=options)
                shares = [
                    self._check_neighbors(dict(zip(kept, truth.tolist(), strict=True)), neighbors, groups)
                    for truth, neighbors in zip(truths, results, strict=True)
                ]
                assert groups is not None or np.mean(shares) >= (1 if recall == 1 else 0.9)

    def _scores(self, vectors: NDArray[np.float64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._model.spec.metric is Metric.L2:
            return np.asarray(-np.linalg.norm(vectors - query, axis=1))
        return np.asarray(vectors @ query)

    def _check_neighbors(
        self, truth: dict[str, float], neighbors: list[Neighbor], groups: GroupBy | None
    ) -> float:
        """The recall: the share of places taken by an item that is near enough for them."""
        ids = [neighbor.id for neighbor in neighbors]
        assert len(set(ids)) == len(ids) <= 10
        scores = [neighbor.score for neighbor in neighbors]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, [truth[name] for name in ids], atol=TOLERANCE)
        clusters = Counter(neighbor.attributes["cluster"] for neighbor in neighbors)
        assert groups is None or all(count <= groups.max_per_group for count in clusters.values())
        best = sorted(truth.values(), reverse=True)[:10]
        return sum(score >= best[-1] - TOLERANCE for score in scores) / len(best) if best else 1.0


@pytest.mark.parametrize("engine", LARGE_ENGINES)
def test_agrees_with_brute_force(engine: str) -> None:
    histories = given(
        engine=st.just(engine),
        metric=st.sampled_from(Metric),
        storage=st.sampled_from(Storage),
        seed=st.integers(0, 1000),
        steps=STEPS,
    )
    limited = settings(
        max_examples=EXAMPLES.get(engine, 6),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    limited(histories(check_history))()


def check_history(engine: str, metric: Metric, storage: Storage, seed: int, steps: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    runner = Runner(engine, folder, metric, storage, seed)
    try:
        runner.check()
        for step in steps:
            getattr(runner, step)()
            runner.check()
        runner.flush()
        runner.check()
    finally:
        runner.index.close()
        shutil.rmtree(folder)
