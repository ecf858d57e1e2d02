"""HNSW indexes: built in the background, as near to exact as was asked for, and never against a filter."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.sql import SQL, Identifier

from service.errors import DeadlineExpired, IndexUnusable
from service.retrieval.filters import And, Equals, Filter, Not, Range, matches
from service.retrieval.index import CollectionSpec, GroupBy, Item, Metric, SearchOptions, Storage
from service.retrieval.pgvector.engine import PgvectorIndex
from service.retrieval.pgvector.search import candidates_for
from service.retrieval.schema import AttributeType
from tests.client.waiting import until
from tests.service.retrieval.pgvector.conftest import Opener, Sql

LookingAt = Callable[[str], AbstractContextManager[None]]
COUNT, DIMENSION = 2000, 32
SCHEMA = {"number": AttributeType.INT, "label": AttributeType.STRING}


def vectors(count: int = COUNT, dimension: int = DIMENSION, seed: int = 1) -> NDArray[np.float32]:
    """Around a few centres, as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((30, dimension))
    noise = 0.5 * rng.standard_normal((count, dimension))
    return (centres[rng.integers(30, size=count)] + noise).astype(np.float32)


def attributes(number: int) -> dict[str, Any]:
    return {"number": number, "label": f"label {number % 10}"}


def filled(index: PgvectorIndex, spec: CollectionSpec, rows: NDArray[np.float32]) -> None:
    index.create(spec)
    index.upsert(spec.name, [Item(str(number), row, attributes(number)) for number, row in enumerate(rows)])
    index.flush(spec.name)
    assert index.describe(spec.name).index_type == "hnsw"


@pytest.fixture
def looking_at(conninfo: str, schema: str) -> LookingAt:
    """While it lasts, another session looks at one moment of a table: a build waits for it to end."""

    @contextmanager
    def look(table: str) -> Iterator[None]:
        with psycopg.connect(conninfo) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute(SQL("SELECT FROM {}").format(Identifier(schema, table)))
            yield

    return look


def nearest(rows: NDArray[np.float32], query: NDArray[np.float32], metric: Metric) -> list[int]:
    if metric is Metric.L2:
        return [int(n) for n in np.argsort(np.linalg.norm(rows - query, axis=1), kind="stable")]
    lengths = np.linalg.norm(rows, axis=1) if metric is Metric.COSINE else 1
    return [int(n) for n in np.argsort(-(rows @ query) / lengths, kind="stable")]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("storage", Storage)
def test_finds_the_share_that_was_asked_for(open_index: Opener, metric: Metric, storage: Storage) -> None:
    index = open_index(index_from_items=1000)
    rows, queries = vectors(), vectors(50, seed=2)
    if metric is Metric.INNER_PRODUCT:
        rows *= 3 / np.linalg.norm(rows, axis=1, keepdims=True)
    filled(index, CollectionSpec("photos", DIMENSION, metric, "", SCHEMA, storage), rows)
    stored = np.stack([item.vector for item in index.scan("photos", limit=COUNT)])
    order = np.array([int(item.id) for item in index.scan("photos", limit=COUNT, include_vectors=False)])
    rows[order] = stored  # as rounded
    truth = [nearest(rows, query, metric)[:10] for query in queries]

    def recall(**options: Any) -> float:
        results = index.search("photos", queries, 10, options=SearchOptions(**options))
        hits = [
            len({int(n.id) for n in found} & set(true)) for found, true in zip(results, truth, strict=True)
        ]
        return sum(hits) / 500

    assert recall(recall=1.0) >= 0.998  # all of them, but for a tie
    assert recall() >= 0.97
    for found in index.search("photos", queries, 10):
        scores = [neighbor.score for neighbor in found]
        assert scores == sorted(scores, reverse=True)


def test_filters_hold_and_find_their_share(open_index: Opener) -> None:
    index = open_index(index_from_items=1000)
    rows, queries = vectors(), vectors(40, seed=2)
    filled(index, CollectionSpec("photos", DIMENSION, Metric.L2, "", SCHEMA), rows)
    orders = [nearest(rows, query, Metric.L2) for query in queries]
    conditions: list[Filter] = [
        Range("number", lt=10),
        Range("number", lt=300),
        Equals("label", "label 3"),
        Not(Equals("label", "label 3")),
        And((Range("number", gte=1000), Not(Equals("label", "label 3")))),
    ]
    for condition in conditions:
        kept = {number for number in range(COUNT) if matches(condition, attributes(number))}
        hits = wanted = 0
        results = index.search("photos", queries, 20, options=SearchOptions(filter=condition))
        for order, found in zip(orders, results, strict=True):
            true = [number for number in order if number in kept][:20]
            numbers = {int(neighbor.id) for neighbor in found}
            assert numbers <= kept
            assert len(found) == len(true)
            hits, wanted = hits + len(numbers & set(true)), wanted + len(true)
        assert hits / wanted >= 0.97, condition


def test_it_is_the_index_that_answers(open_index: Opener, sql: Sql) -> None:
    """Not the planner's liking for small tables; but where all is asked for, or little kept, every item."""
    index = open_index(index_from_items=1000)
    rows = vectors()
    filled(index, CollectionSpec("photos", DIMENSION, Metric.L2, "", SCHEMA), rows)

    def uses(**options: Any) -> bool:
        def scans() -> int:
            [(number,)] = sql(
                "SELECT pg_stat_get_numscans('items_1_hnsw'::regclass) FROM pg_stat_clear_snapshot()"
            )
            return int(number)

        before = scans()
        index.search("photos", rows[:1], 10, options=SearchOptions(**options))
        index.close()  # its sessions count what they did when they end
        until(lambda: not sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'fovea'"))
        return scans() > before

    assert uses()
    for options in ({"recall": 1.0}, {"filter": Range("number", lt=20)}):
        index = open_index(index_from_items=1000)
        assert not uses(**options)
    index = open_index(index_from_items=1000)
    assert uses(filter=Range("number", lt=1000))


def test_what_is_written_or_deleted_later_is_seen(open_index: Opener) -> None:
    index = open_index(index_from_items=1000)
    rows = vectors()
    filled(index, CollectionSpec("photos", DIMENSION, Metric.COSINE, "", SCHEMA), rows)
    gone = [str(number) for number in range(0, COUNT, 2)]
    assert index.delete("photos", gone) == len(gone)
    index.upsert("photos", [Item("new", rows[0], {"number": -1})])
    results = index.search("photos", rows[:40:2], 50)
    assert results[0][0].id == "new"
    assert not {neighbor.id for found in results for neighbor in found} & set(gone)
    assert all(len(found) == 50 for found in results)


def test_deep_pages_and_groups_go_on_to_the_end(open_index: Opener) -> None:
    index = open_index(index_from_items=1000)
    rows = vectors()
    filled(index, CollectionSpec("photos", DIMENSION, Metric.L2, "", SCHEMA), rows)
    [found] = index.search("photos", rows[:1], 100, options=SearchOptions(offset=COUNT - 50))
    assert len(found) == 50
    [found] = index.search("photos", rows[:1], 100, options=SearchOptions(group_by=GroupBy("label", 2)))
    assert len(found) == 20
    assert found[0].id == "0"


def test_candidates_rise_with_what_is_wanted_within_pgvectors_bounds() -> None:
    assert candidates_for(0.98, 10, 20_000, 1.0) == 200
    assert candidates_for(0.9, 10, 20_000, 1.0) < 100 < candidates_for(0.95, 10, 20_000, 1.0) < 200
    assert candidates_for(0.98, 100, 20_000, 1.0) == 380
    assert candidates_for(0.98, 10, 100_000, 1.0) > 200
    assert 200 < candidates_for(0.98, 10, 20_000, 0.5) < 300 < candidates_for(0.98, 10, 20_000, 0.1) < 500
    assert candidates_for(1e-9, 1, 1, 1.0) == 40
    assert candidates_for(1 - 1e-9, 65_536, 10**9, 0.05) == 1000


@pytest.mark.parametrize(
    ("dimension", "metric", "storage", "index_type"),
    [
        (2048, Metric.COSINE, Storage.FLOAT32, "hnsw"),  # by halves
        (2048, Metric.L2, Storage.FLOAT16, "hnsw"),
        (2048, Metric.L2, Storage.FLOAT32, "flat"),  # halves might not hold it
        (4001, Metric.COSINE, Storage.FLOAT16, "flat"),
    ],
)
def test_wide_vectors(
    open_index: Opener, dimension: int, metric: Metric, storage: Storage, index_type: str
) -> None:
    index = open_index(index_from_items=20)
    rows = vectors(60, dimension)
    if storage is Storage.FLOAT32 and metric is Metric.L2:
        rows *= 1e6
    index.create(CollectionSpec("photos", dimension, metric, "", {}, storage))
    index.upsert("photos", [Item(str(number), row) for number, row in enumerate(rows)])
    index.flush("photos")
    assert index.describe("photos").index_type == index_type
    for number, found in enumerate(index.search("photos", rows[:8], 5)):
        assert found[0].id == str(number)
        assert found[0].score == pytest.approx(1 if metric is Metric.COSINE else 0, abs=0.5)
    if storage is Storage.FLOAT16 and metric is Metric.L2:
        [far] = index.search("photos", np.full((1, dimension), 1e6, np.float32), 3)  # no half can be this
        assert len(far) == 3


def test_inner_products_of_unlike_lengths_are_looked_at_one_by_one(open_index: Opener) -> None:
    index = open_index(index_from_items=1000)
    rows = vectors()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    filled(index, CollectionSpec("photos", DIMENSION, Metric.INNER_PRODUCT, "", SCHEMA), rows)
    rows[7] *= 2
    index.upsert("photos", [Item("7", rows[7])])
    assert index.describe("photos").index_type == "flat"
    queries = vectors(20, seed=2)
    for query, found in zip(queries, index.search("photos", queries, 10), strict=True):
        assert [int(neighbor.id) for neighbor in found] == nearest(rows, query, Metric.INNER_PRODUCT)[:10]
    index.flush("photos")
    assert index.describe("photos").index_type == "flat"


def test_an_index_is_built_without_being_asked_for(open_index: Opener) -> None:
    index = open_index(index_from_items=50)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    index.upsert("photos", [Item(str(n), row) for n, row in enumerate(vectors(49, 4))])
    assert index.describe("photos").index_type == "flat"
    index.upsert("photos", [Item("last", np.zeros(4, np.float32))])
    until(lambda: index.describe("photos").index_type == "hnsw")


def test_a_build_that_broke_off_is_begun_again(open_index: Opener, sql: Sql) -> None:
    index = open_index(index_from_items=50)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    index.upsert("photos", [Item(str(n), row) for n, row in enumerate(vectors(80, 4))])
    index.flush("photos")
    index.close()
    # As a crash leaves it.
    sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'items_1_hnsw'::regclass")
    [before] = sql("SELECT 'items_1_hnsw'::regclass::oid")
    index = open_index(index_from_items=50)
    until(lambda: index.describe("photos").index_type == "hnsw")
    assert sql("SELECT 'items_1_hnsw'::regclass::oid") != [before]


def test_a_build_that_fails_is_told_and_searches_go_on(open_index: Opener) -> None:
    index = open_index(index_from_items=50, build_memory_mb=0)  # which PostgreSQL refuses
    rows = vectors(80, 4)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    index.upsert("photos", [Item(str(n), row) for n, row in enumerate(rows)])
    for _ in range(2):  # tried again at once, when asked for
        with pytest.raises(IndexUnusable, match=r"items_1.*maintenance_work_mem"):
            index.flush("photos")
    assert index.describe("photos").index_type == "flat"
    [[nearest_one]] = index.search("photos", rows[7:8], 1)
    assert nearest_one.id == "7"


def test_writes_and_searches_go_on_while_an_index_is_built(
    open_index: Opener, sql: Sql, looking_at: LookingAt
) -> None:
    index = open_index(index_from_items=50, flush_timeout_s=0.1)
    rows = vectors(80, 4)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    with looking_at("items_1"):
        index.upsert("photos", [Item(str(n), row) for n, row in enumerate(rows)])
        until(lambda: bool(sql("SELECT pid FROM pg_stat_progress_create_index")))
        index.upsert("photos", [Item("during", rows[0])])
        index.delete("photos", ["0"])
        [[nearest_one]] = index.search("photos", rows[:1], 1)
        assert nearest_one.id == "during"
        with pytest.raises(DeadlineExpired, match="index of collection photos is still being built"):
            index.flush("photos")
        assert index.describe("photos").index_type == "flat"
    until(lambda: index.describe("photos").index_type == "hnsw")
    [[nearest_one]] = index.search("photos", rows[:1], 1)
    assert nearest_one.id == "during"


def test_two_servers_build_one_index(open_index: Opener, sql: Sql) -> None:
    first, second = (open_index(index_from_items=50) for _ in range(2))
    first.create(CollectionSpec("photos", 4, Metric.L2, ""))
    first.upsert("photos", [Item(str(n), row) for n, row in enumerate(vectors(80, 4))])
    second.flush("photos")
    first.flush("photos")
    assert second.describe("photos").index_type == "hnsw"
    names = sql(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'items_1' AND schemaname = current_schema()"
    )
    assert [name for (name,) in names if "hnsw" in name] == ["items_1_hnsw"]


def test_a_collection_is_dropped_while_its_index_is_built(
    open_index: Opener, sql: Sql, looking_at: LookingAt
) -> None:
    index = open_index(index_from_items=50)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    index.create(CollectionSpec("other", 4, Metric.L2, ""))
    with looking_at("items_1"):
        index.upsert("photos", [Item(str(n), row) for n, row in enumerate(vectors(80, 4))])
        until(lambda: bool(sql("SELECT pid FROM pg_stat_progress_create_index")))
        index.drop("photos")
        assert [info.spec.name for info in index.list_collections()] == ["other"]
    until(lambda: not sql("SELECT 1 WHERE to_regclass('items_1') IS NOT NULL"))
    index.upsert("other", [Item(str(n), row) for n, row in enumerate(vectors(80, 4))])
    index.flush("other")
    assert index.describe("other").index_type == "hnsw"


def test_close_gives_a_build_up(open_index: Opener, sql: Sql, looking_at: LookingAt) -> None:
    index = open_index(index_from_items=50)
    index.create(CollectionSpec("photos", 4, Metric.L2, ""))
    with looking_at("items_1"):
        index.upsert("photos", [Item(str(n), row) for n, row in enumerate(vectors(80, 4))])
        until(lambda: bool(sql("SELECT pid FROM pg_stat_progress_create_index")))
        index.close()
        until(lambda: not sql("SELECT pid FROM pg_stat_progress_create_index"))
    index = open_index(index_from_items=50)
    until(lambda: index.describe("photos").index_type == "hnsw")
