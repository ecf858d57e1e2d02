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

from service.errors import CollectionExists, CollectionNotFound
from service.retrieval.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from service.retrieval.index import CollectionSpec, GroupBy, Index, Item, Metric, SearchOptions, Storage
from service.retrieval.schema import AttributeType, AttributeValue
from tests.service.retrieval.conftest import APPROXIMATE, ENGINES, EXAMPLES, MEMORY, Opener
from tests.service.retrieval.model import Model, Row, same_attributes

COLLECTIONS = st.sampled_from(["c1", "c2"])
IDS = st.sampled_from([f"id-{n}" for n in range(25)] + ["é", "e\u0301", "日本", "\x01"])
DIMENSION = 3
# Small whole numbers give many ties; the others differ in scale.
COMPONENTS = st.integers(-2, 2).map(float) | st.floats(-1e4, 1e4, width=16)
VECTORS = st.lists(COMPONENTS, min_size=DIMENSION, max_size=DIMENSION).filter(
    lambda values: bool(np.any(np.abs(values) > 1e-3))
)
SCHEMA = {
    "label": AttributeType.STRING,
    "size": AttributeType.INT,
    "ratio": AttributeType.FLOAT,
    "good": AttributeType.BOOL,
}
# Few, so that items share them and filters hit them.
VALUES: dict[str, st.SearchStrategy[AttributeValue]] = {
    "label": st.sampled_from(["", "a", "b", "é", "\ufffd", "\U0001f5bc"]),
    "size": st.sampled_from([0, 1, 2, -(2**63), 2**63 - 1, 2**53, 2**53 + 1]),
    "ratio": st.sampled_from([0.0, -1.5, 1, 1e300, 2**53 + 1]),
    "good": st.booleans(),
}
OTHERS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=3),
    st.text(st.characters(codec="utf-8"), max_size=5)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans(),
    max_size=1,
)
ATTRIBUTES = st.builds(lambda one, other: one | other, OTHERS, st.fixed_dictionaries({}, optional=VALUES))
ROWS = st.lists(st.tuples(IDS, VECTORS, ATTRIBUTES), max_size=12)


def bounds(name: str) -> st.SearchStrategy[Filter]:
    sides = st.sampled_from(["gt", "gte", "lt", "lte"])
    given_bounds = st.dictionaries(sides, VALUES[name], min_size=1, max_size=2)
    return given_bounds.map(lambda given: Range(name, **given))


def comparisons(name: str) -> st.SearchStrategy[Filter]:
    values = VALUES[name]
    return (
        values.map(lambda value: Equals(name, value))
        | st.lists(values, max_size=3).map(lambda some: In(name, tuple(some)))
        | st.just(Exists(name))
    )


FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(*map(comparisons, SCHEMA), *(bounds(name) for name in SCHEMA if name != "good")),
    lambda parts: (
        parts.map(Not)
        | st.lists(parts, max_size=3).map(lambda some: And(tuple(some)))
        | st.lists(parts, max_size=3).map(lambda some: Or(tuple(some)))
    ),
    max_leaves=4,
)
OPTIONS = st.builds(
    SearchOptions,
    filter=st.none() | FILTERS,
    min_score=st.none() | st.integers(-9, 9).map(lambda score: score / 3),
    group_by=st.none() | st.builds(GroupBy, st.sampled_from(list(SCHEMA)), st.integers(1, 2)),
    offset=st.just(0) | st.integers(0, 6),
    recall=st.sampled_from([0.98, 1.0]),
)


class IndexMachine(RuleBasedStateMachine):
    """Random calls; after each, sizes agree."""

    open_engine: Opener
    exact: bool

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.index: Index = type(self).open_engine(self.folder)
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    @initialize(metric=st.sampled_from(Metric), storage=st.sampled_from(Storage), rows=ROWS)
    def start(
        self, metric: Metric, storage: Storage, rows: list[tuple[str, list[float], dict[str, Any]]]
    ) -> None:
        self.create("c1", metric, storage)
        self.upsert("c1", rows)

    @rule(name=COLLECTIONS, metric=st.sampled_from(Metric), storage=st.sampled_from(Storage))
    def create(self, name: str, metric: Metric, storage: Storage) -> None:
        spec = CollectionSpec(name, DIMENSION, metric, metric.value, SCHEMA, storage)
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

    @rule(swap=st.booleans())
    def take_place(self, swap: bool) -> None:
        """c2 takes c1's name and place, or, where it is free, the name alone."""
        old, new = ("c2", "c1") if swap else ("c1", "c2")
        if new not in self.models:
            return
        (self.index.replace if old in self.models else self.index.rename)(
            *((old, new) if old in self.models else (new, old))
        )
        model = self.models.pop(new)
        spec = model.spec
        model.spec = CollectionSpec(old, DIMENSION, spec.metric, spec.fingerprint, SCHEMA, spec.storage)
        self.models[old] = model

    @rule(name=COLLECTIONS, rows=ROWS)
    def upsert(self, name: str, rows: list[tuple[str, list[float], dict[str, Any]]]) -> None:
        if model := self.models.get(name):
            self.index.upsert(name, [Item(key, np.array(v, np.float32), a) for key, v, a in rows])
            model.upsert({key: Row(np.array(v, np.float64), a) for key, v, a in rows})

    @rule(name=COLLECTIONS, ids=st.lists(IDS, max_size=12))
    def delete(self, name: str, ids: list[str]) -> None:
        if model := self.models.get(name):
            there = [key for key in dict.fromkeys(ids) if model.rows.pop(key, None)]
            assert self.index.delete(name, ids) == len(there)

    @rule(name=COLLECTIONS, condition=FILTERS)
    def delete_matching(self, name: str, condition: Filter) -> None:
        if model := self.models.get(name):
            there = model.kept(condition)
            assert self.index.delete_matching(name, condition) == len(there)
            for key in there:
                del model.rows[key]

    @rule(name=COLLECTIONS, condition=FILTERS)
    def count(self, name: str, condition: Filter) -> None:
        if model := self.models.get(name):
            assert self.index.count(name, condition) == len(model.kept(condition))

    @rule(
        name=COLLECTIONS,
        queries=st.lists(st.tuples(VECTORS, st.none() | IDS), min_size=1, max_size=4),
        top_k=st.integers(1, 30),
        options=OPTIONS,
    )
    def search(
        self, name: str, queries: list[tuple[list[float], str | None]], top_k: int, options: SearchOptions
    ) -> None:
        if not (model := self.models.get(name)):
            return
        array = np.array([query for query, _ in queries], np.float32)
        excluded = [excluded for _, excluded in queries]
        results = self.index.search(name, array, top_k, options=options, excluded_ids=excluded)
        exact = self.exact or options.recall == 1
        for query, one, neighbors in zip(array.astype(np.float64), excluded, results, strict=True):
            model.check(query, top_k, options, one, neighbors, exact=exact)

    @rule(name=COLLECTIONS, ids=st.lists(IDS, max_size=8))
    def get(self, name: str, ids: list[str]) -> None:
        if model := self.models.get(name):
            items = self.index.get(name, ids)
            assert [item.id for item in items] == [key for key in ids if key in model.rows]
            self.check_items(model, items)

    @rule(name=COLLECTIONS, limit=st.integers(1, 12), condition=st.none() | FILTERS)
    def scan(self, name: str, limit: int, condition: Filter | None) -> None:
        if model := self.models.get(name):
            seen: list[Item] = []
            while page := self.index.scan(
                name, after=seen[-1].id if seen else "", limit=limit, condition=condition
            ):
                assert len(page) <= limit
                seen += page
            assert [item.id for item in seen] == sorted(model.kept(condition))
            self.check_items(model, seen)

    @rule(name=COLLECTIONS)
    def items(self, name: str) -> None:
        if model := self.models.get(name):
            with self.index.items(name) as pages:
                items = [item for page in pages for item in page]
            assert [item.id for item in items] == list(model.rows)
            self.check_items(model, items)

    @rule(name=COLLECTIONS)
    def flush(self, name: str) -> None:
        if name in self.models:
            self.index.flush(name)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = type(self).open_engine(self.folder)

    @invariant()
    def sizes_agree(self) -> None:
        assert [(info.spec, info.count) for info in self.index.list_collections()] == [
            (model.spec, len(model.rows)) for _, model in sorted(self.models.items())
        ]

    @staticmethod
    def check_items(model: Model, items: list[Item]) -> None:
        for item in items:
            # Half a unit in the last place of float16: a length of 1 ± rounding may round to either side.
            rounding = 2.0**-11 if model.spec.storage is Storage.FLOAT16 else 1e-6
            np.testing.assert_allclose(item.vector, model.stored(item.id), rtol=2 * rounding, atol=1e-7)
            same_attributes(item.attributes, model.rows[item.id].attributes)


@pytest.mark.parametrize("engine", ENGINES)
def test_agrees_with_brute_force(engine: str) -> None:
    members = {"open_engine": staticmethod(ENGINES[engine]), "exact": engine not in APPROXIMATE}
    run_state_machine_as_test(
        type("Machine", (IndexMachine,), members),
        settings=settings(
            max_examples=EXAMPLES.get(engine, 50),
            stateful_step_count=30,
            deadline=None,  # each call flushes to disk
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            database=None,
        ),
    )
