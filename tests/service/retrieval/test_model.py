"""Every engine against a brute-force model under random calls and restarts."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import CollectionExists, CollectionNotFound
from service.retrieval.filters import And
from service.retrieval.index import CollectionSpec, Index, Item, Metric, Storage
from tests.service.retrieval.conftest import APPROXIMATE, ENGINES, EXAMPLES, MEMORY
from tests.service.retrieval.draws import DIMENSION, SCHEMA, Draw
from tests.service.retrieval.model import Model, Row, same_attributes

# How often each comes, beside the others.
CALLS = {
    "upsert": 5,
    "search": 6,
    "delete": 2,
    "delete_matching": 1,
    "scan": 2,
    "items": 1,
    "get": 1,
    "count": 1,
    "flush": 1,
    "reopen": 2,
    "create": 1,
    "drop": 1,
    "take_place": 1,
}
CALL = st.tuples(
    st.sampled_from([name for name, times in CALLS.items() for _ in range(times)]),
    st.sampled_from(["c1", "c1", "c1", "c2"]),
    st.integers(0, 2**32 - 1),
)


class Pair:
    """An engine and the models of its collections; each method makes one call to both and compares."""

    def __init__(self, engine: str) -> None:
        self._open, self._exact = ENGINES[engine], engine not in APPROXIMATE
        self._folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.index: Index = self._open(self._folder)
        self.models: dict[str, Model] = {}

    def close(self) -> None:
        self.index.close()
        shutil.rmtree(self._folder)

    def call(self, method: str, name: str, draw: Draw) -> None:
        """A method by its name."""
        if method in ("create", "drop", "take_place", "reopen") or name in self.models:
            getattr(self, method)(name, draw)
        assert [(info.spec, info.count) for info in self.index.list_collections()] == [
            (model.spec, len(model.rows)) for _, model in sorted(self.models.items())
        ]

    def create(self, name: str, draw: Draw) -> None:
        metric = draw.one_of(list(Metric))
        spec = CollectionSpec(name, DIMENSION, metric, metric.value, SCHEMA, draw.one_of(list(Storage)))
        if name in self.models:
            with pytest.raises(CollectionExists):
                self.index.create(spec)
        else:
            self.index.create(spec)
            self.models[name] = Model(spec)

    def drop(self, name: str, draw: Draw) -> None:
        if self.models.pop(name, None):
            self.index.drop(name)
            self.create(name, draw)  # soon again, so that there is something to call
            self.upsert(name, draw)
        else:
            with pytest.raises(CollectionNotFound):
                self.index.drop(name)

    def take_place(self, name: str, draw: Draw) -> None:
        """It takes the other's name and place, or, where that is free, the name alone."""
        other = "c1" if name == "c2" else "c2"
        if name not in self.models:
            with pytest.raises(CollectionNotFound):
                self.index.rename(name, other)
            return
        if other in self.models:
            self.index.replace(other, name)
        else:
            self.index.rename(name, other)
        model = self.models.pop(name)
        spec = model.spec
        model.spec = CollectionSpec(other, DIMENSION, spec.metric, spec.fingerprint, SCHEMA, spec.storage)
        self.models[other] = model

    def upsert(self, name: str, draw: Draw) -> None:
        rows = draw.rows()
        self.index.upsert(name, [Item(key, np.array(v, np.float32), a) for key, v, a in rows])
        self.models[name].upsert({key: Row(np.array(v, np.float64), a) for key, v, a in rows})

    def delete(self, name: str, draw: Draw) -> None:
        rows, ids = self.models[name].rows, draw.ids()[:6]
        there = [key for key in dict.fromkeys(ids) if rows.pop(key, None)]
        assert self.index.delete(name, ids) == len(there)

    def delete_matching(self, name: str, draw: Draw) -> None:
        condition = And((draw.condition(), draw.condition()))
        there = self.models[name].kept(condition)
        assert self.index.delete_matching(name, condition) == len(there)
        for key in there:
            del self.models[name].rows[key]

    def count(self, name: str, draw: Draw) -> None:
        for condition in [draw.condition() for _ in range(5)]:
            assert self.index.count(name, condition) == len(self.models[name].kept(condition)), condition

    def search(self, name: str, draw: Draw) -> None:
        for _ in range(3):
            queries = np.array([draw.vector() for _ in range(3)], np.float32)
            options, top_k = draw.options(), draw.top_k()
            excluded = [draw.excluded() for _ in queries]
            results = self.index.search(name, queries, top_k, options=options, excluded_ids=excluded)
            exact = self._exact or options.recall == 1
            for query, one, neighbors in zip(queries.astype(np.float64), excluded, results, strict=True):
                self.models[name].check(query, top_k, options, one, neighbors, exact=exact)

    def get(self, name: str, draw: Draw) -> None:
        ids = draw.ids()
        items = self.index.get(name, ids)
        assert [item.id for item in items] == [key for key in ids if key in self.models[name].rows]
        self._check_items(name, items)

    def scan(self, name: str, draw: Draw) -> None:
        for condition in (None, draw.condition()):
            limit = draw.one_of([1, 2, 5, 100])
            seen: list[Item] = []
            while page := self.index.scan(
                name, after=seen[-1].id if seen else "", limit=limit, condition=condition
            ):
                assert len(page) <= limit
                seen += page
            assert [item.id for item in seen] == sorted(self.models[name].kept(condition))
            self._check_items(name, seen)

    def items(self, name: str, draw: Draw) -> None:
        with self.index.items(name) as pages:
            items = [item for page in pages for item in page]
        assert [item.id for item in items] == list(self.models[name].rows)
        self._check_items(name, items)

    def flush(self, name: str, draw: Draw) -> None:
        self.index.flush(name)

    def reopen(self, name: str, draw: Draw) -> None:
        self.index.close()
        self.index = self._open(self._folder)

    def _check_items(self, name: str, items: list[Item]) -> None:
        model = self.models[name]
        # Half a unit in the last place of float16: a length of 1 ± rounding may round to either side.
        rounding = 2.0**-11 if model.spec.storage is Storage.FLOAT16 else 1e-6
        for item in items:
            np.testing.assert_allclose(item.vector, model.stored(item.id), rtol=2 * rounding, atol=1e-7)
            same_attributes(item.attributes, model.rows[item.id].attributes)


@pytest.mark.parametrize("engine", ENGINES)
def test_agrees_with_brute_force(engine: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(engine, 40),
        deadline=None,  # each call flushes to disk
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
    @given(st.lists(CALL, min_size=25, max_size=40))
    @example([(method, "c1", seed) for seed in range(6) for method in CALLS])
    def histories(calls: list[tuple[str, str, int]]) -> None:
        pair = Pair(engine)
        try:
            for seed, method in enumerate(("create", "upsert", "upsert", "upsert")):
                pair.call(method, "c1", Draw(len(calls) + seed))
            for method, name, seed in calls:
                pair.call(method, name, Draw(seed))
        finally:
            pair.close()

    histories()
