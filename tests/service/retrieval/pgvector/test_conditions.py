"""Filters as SQL: strings longer than the indexes hold, and that these are used."""

import numpy as np
import pytest

from service.retrieval.filters import And, Equals, Filter, In, Not, Range, matches
from service.retrieval.index import CollectionSpec, Item, Metric
from service.retrieval.pgvector.conditions import Conditions
from service.retrieval.pgvector.table import PREFIX_CHARACTERS, Table
from service.retrieval.schema import AttributeType
from tests.service.retrieval.pgvector.conftest import Opener, Sql

LONG = "é" * PREFIX_CHARACTERS
LABELS = ["", LONG[:-1], LONG, LONG + "a", LONG + "b", LONG[:-1] + "z", "z" * 60_000, "z" * 60_000 + "a"]
SPEC = CollectionSpec("photos", 1, Metric.L2, "", {"label": AttributeType.STRING, "size": AttributeType.INT})


@pytest.mark.parametrize("value", LABELS)
def test_long_strings_are_compared_whole(open_index: Opener, value: str) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert(
        "photos", [Item(str(n), np.zeros(1, np.float32), {"label": label}) for n, label in enumerate(LABELS)]
    )
    conditions: list[Filter] = [
        Equals("label", value),
        In("label", (value, LONG + "b", "nobody")),
        Range("label", gt=value),
        Range("label", gte=value),
        Range("label", lt=value),
        Range("label", lte=value),
        Not(Range("label", gte=value, lt=LONG + "b")),
    ]
    for condition in conditions:
        kept = [str(n) for n, label in enumerate(LABELS) if matches(condition, {"label": label})]
        assert [item.id for item in index.scan("photos", condition=condition)] == kept, condition


def test_a_selective_filter_is_answered_by_the_attributes_index(open_index: Opener, sql: Sql) -> None:
    index = open_index()
    index.create(SPEC)
    index.upsert(
        "photos",
        [
            Item(str(n), np.full(1, n, np.float32), {"label": f"label {n}", "size": n % 500})
            for n in range(5000)
        ],
    )
    index.flush("photos")
    condition = And((Equals("size", 7), Not(Equals("label", "label 7"))))

    assert index.count("photos", condition) == 9
    where = Conditions(Table(1, SPEC), condition)
    plan = sql("EXPLAIN SELECT FROM items_1 WHERE " + where.sql.as_string(), *where.parameters)
    assert "Index" in str(plan)
    assert "Seq Scan" not in str(plan)
