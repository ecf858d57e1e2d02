"""Every engine against a brute-force model under random calls and restarts."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from service.errors import CollectionExists, CollectionNotFound
from service.retrieval.index import CollectionInfo, CollectionSpec, Index, Item, Metric
from tests.service.retrieval.conftest import ENGINES, Opener

COLLECTIONS = st.sampled_from(["c1", "c2"])
IDS = st.sampled_from([f"id-{n}" for n in range(25)] + ["é", "e\u0301", "日本", "\x00"])
DIMENSION = 3
# Small whole numbers give many ties; the others differ in scale.
COMPONENTS = st.integers(-2, 2).map(float) | st.floats(-1e4, 1e4, width=32)
VECTORS = st.lists(COMPONENTS, min_size=DIMENSION, max_size=DIMENSION).filter(
    lambda values: bool(np.any(np.abs(values) > 1e-3))
)
ATTRIBUTES = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=3),
    st.text(st.characters(codec="utf-8"), max_size=5)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans(),
    max_size=2,
)


class Model:
    """A collection as dictionaries, searched by numpy in float64."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec
        self.vectors: dict[str, NDArray[np.float64]] = {}
        self.attributes: dict[str, dict[str, Any]] = {}

    def put(self, name: str, vector: NDArray[np.float64], attributes: dict[str, Any]) -> None:
        self.vectors[name], self.attributes[name] = self.normalised(vector), attributes

    def remove(self, name: str) -> bool:
        self.attributes.pop(name, None)
        return self.vectors.pop(name, None) is not None

    def normalised(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return vector / np.linalg.norm(vector) if self.spec.metric is Metric.COSINE else vector

    def scores(self, query: NDArray[np.float64]) -> dict[str, float]:
        query = self.normalised(query)
        if self.spec.metric is Metric.L2:
            return {name: -float(np.linalg.norm(v - query)) for name, v in self.vectors.items()}
        return {name: float(v @ query) for name, v in self.vectors.items()}


class IndexMachine(RuleBasedStateMachine):
    """Random calls; after each, sizes agree."""

    open_engine: Opener

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.index: Index = type(self).open_engine(self.folder)
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    @initialize(metric=st.sampled_from(Metric))
    def start(self, metric: Metric) -> None:
        self.create("c1", metric)

    @rule(name=COLLECTIONS, metric=st.sampled_from(Metric))
    def create(self, name: str, metric: Metric) -> None:
        spec = CollectionSpec(name, DIMENSION, metric, metric.value)
        if name in self.models:
            with pytest.raises(CollectionExists):
                self.index.create(spec)
        else:
            self.index.create(spec)
            self.models[name] = Model(spec)

    @rule(name=COLLECTIONS)
    def drop(self, name: str) -> None:
        if self.models.pop(name, None):
            self.index.drop(name)
        else:
            with pytest.raises(CollectionNotFound):
                self.index.drop(name)

    @rule(name=COLLECTIONS, rows=st.lists(st.tuples(IDS, VECTORS, ATTRIBUTES), max_size=12))
    def upsert(self, name: str, rows: list[tuple[str, list[float], dict[str, Any]]]) -> None:
        if model := self.models.get(name):
            self.index.upsert(name, [Item(key, np.array(v, np.float32), a) for key, v, a in rows])
            for key, vector, attributes in rows:
                model.put(key, np.array(vector, np.float32).astype(np.float64), attributes)

    @rule(name=COLLECTIONS, ids=st.lists(IDS, max_size=12))
    def delete(self, name: str, ids: list[str]) -> None:
        if model := self.models.get(name):
            assert self.index.delete(name, ids) == sum([model.remove(key) for key in ids])

    @rule(name=COLLECTIONS, queries=st.lists(VECTORS, min_size=1, max_size=4), top_k=st.integers(1, 30))
    def search(self, name: str, queries: list[list[float]], top_k: int) -> None:
        if not (model := self.models.get(name)):
            return
        array = np.array(queries, np.float32)
        results = self.index.search(name, array, top_k)
        assert len(results) == len(queries)
        for query, neighbors in zip(array.astype(np.float64), results, strict=True):
            truth = model.scores(query)
            ids = [neighbor.id for neighbor in neighbors]
            assert len(set(ids)) == len(ids)
            # Relative to a large score; to nearly 1e-5 absolutely where vectors are of length 1.
            given = np.array([neighbor.score for neighbor in neighbors])
            assert (np.diff(given) <= 0).all()
            np.testing.assert_allclose(given, [truth[key] for key in ids], rtol=1e-6, atol=1e-5)
            best = sorted(truth.values(), reverse=True)[:top_k]
            np.testing.assert_allclose(given, best, rtol=1e-6, atol=1e-5)
            for neighbor in neighbors:
                self.check_attributes(neighbor.attributes, model.attributes[neighbor.id])

    @rule(name=COLLECTIONS, ids=st.lists(IDS, max_size=8))
    def get(self, name: str, ids: list[str]) -> None:
        if model := self.models.get(name):
            items = self.index.get(name, ids)
            assert [item.id for item in items] == [key for key in ids if key in model.vectors]
            for item in items:
                np.testing.assert_allclose(item.vector, model.vectors[item.id], rtol=1e-6, atol=1e-7)
                self.check_attributes(item.attributes, model.attributes[item.id])

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = type(self).open_engine(self.folder)

    @invariant()
    def sizes_agree(self) -> None:
        assert self.index.list_collections() == [
            CollectionInfo(model.spec, len(model.vectors)) for _, model in sorted(self.models.items())
        ]

    @staticmethod
    def check_attributes(given: Any, expected: dict[str, Any]) -> None:
        assert given == expected
        assert all(type(given[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_agrees_with_brute_force(engine: str) -> None:
    machine = type("Machine", (IndexMachine,), {"open_engine": staticmethod(ENGINES[engine])})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,  # each call flushes to disk
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            database=None,
        ),
    )
