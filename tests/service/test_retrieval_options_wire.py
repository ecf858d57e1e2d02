"""Declared attributes, filters, and all that a search may be told, over the wire against brute force."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from fovea.v1 import model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from tests.servers import ServerProcess
from tests.service.refusal import refusal

TIMEOUT_S = 30
COUNT, DIMENSION = 300, 16
LABELS = ("ant", "bee", "cät")
VECTORS = np.random.default_rng(11).normal(size=(COUNT, DIMENSION)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERY = np.random.default_rng(12).normal(size=DIMENSION).astype(np.float32)
Stub = retrieval_pb2_grpc.RetrievalServiceStub
Row = dict[str, Any]


def attributes(number: int) -> Row:
    """Every fifth has no label, every seventh no score."""
    row: Row = {"number": number, "even": number % 2 == 0, "free": f"f{number}"}
    if number % 5:
        row["label"] = LABELS[number % 3]
    if number % 7:
        row["score"] = number / 10
    return row


ROWS = [attributes(number) for number in range(COUNT)]


def value(plain: Any) -> pb.AttributeValue:
    match plain:
        case bool():
            return pb.AttributeValue(bool_value=plain)
        case int():
            return pb.AttributeValue(int_value=plain)
        case float():
            return pb.AttributeValue(double_value=plain)
    return pb.AttributeValue(string_value=plain)


def equals(name: str, plain: Any) -> pb.Filter:
    return pb.Filter(equals=pb.Equals(attribute=name, value=value(plain)))


def is_in(name: str, *values: Any) -> pb.Filter:
    return pb.Filter(is_in=pb.In(attribute=name, values=[value(plain) for plain in values]))


def within(name: str, **bounds: Any) -> pb.Filter:
    return pb.Filter(range=pb.Range(attribute=name, **{key: value(plain) for key, plain in bounds.items()}))


def exists(name: str) -> pb.Filter:
    return pb.Filter(exists=pb.Exists(attribute=name))


def all_of(*filters: pb.Filter) -> pb.Filter:
    return pb.Filter(all_of=pb.Filters(filters=filters))


def any_of(*filters: pb.Filter) -> pb.Filter:
    return pb.Filter(any_of=pb.Filters(filters=filters))


def negation(condition: pb.Filter) -> pb.Filter:
    return pb.Filter(negation=condition)


FILTERS: dict[str, tuple[pb.Filter, Callable[[Row], bool]]] = {
    "equals string": (equals("label", "cät"), lambda row: row.get("label") == "cät"),
    "equals int": (equals("number", 17), lambda row: row["number"] == 17),
    "equals float by an int": (equals("score", 5), lambda row: row.get("score") == 5),
    "equals bool": (equals("even", True), lambda row: row["even"]),
    "equals nothing": (equals("label", "dog"), lambda row: False),
    "in": (is_in("label", "ant", "dog"), lambda row: row.get("label") == "ant"),
    "in numbers": (is_in("number", *range(0, 300, 11)), lambda row: row["number"] % 11 == 0),
    "in none": (is_in("label"), lambda row: False),
    "at least, below": (within("number", gte=20, lt=40), lambda row: 20 <= row["number"] < 40),
    "above, at most": (
        within("score", gt=2.5, lte=7.25),
        lambda row: "score" in row and 2.5 < row["score"] <= 7.25,
    ),
    "strings": (within("label", gt="ant"), lambda row: row.get("label", "") > "ant"),
    "exists": (exists("label"), lambda row: "label" in row),
    "not": (negation(equals("label", "ant")), lambda row: row.get("label") != "ant"),
    "not a range": (negation(within("score", gte=0)), lambda row: "score" not in row),
    "and": (all_of(exists("label"), equals("even", False)), lambda row: "label" in row and not row["even"]),
    "or": (
        any_of(equals("label", "bee"), within("number", lt=5)),
        lambda row: row.get("label") == "bee" or row["number"] < 5,
    ),
    "nested": (
        all_of(
            negation(any_of(equals("even", True), is_in("label", "ant", "bee"))), within("score", gte=1.0)
        ),
        lambda row: not (row["even"] or row.get("label") in ("ant", "bee")) and row.get("score", 0) >= 1,
    ),
    "and of none": (all_of(), lambda row: True),
    "or of none": (any_of(), lambda row: False),
}


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(server.address) as channel:
        yield Stub(channel)


TYPES = {
    "number": pb.ATTRIBUTE_TYPE_INT,
    "even": pb.ATTRIBUTE_TYPE_BOOL,
    "label": pb.ATTRIBUTE_TYPE_STRING,
    "score": pb.ATTRIBUTE_TYPE_FLOAT,
}


def fill(stub: Stub, name: str, metric: pb.Metric.ValueType = pb.METRIC_COSINE) -> pb.Collection:
    external = pb.ExternalVectors(dimension=DIMENSION)
    asked = pb.CreateCollectionRequest(collection=name, external=external, attributes=TYPES, metric=metric)
    made = stub.CreateCollection(asked, timeout=TIMEOUT_S).collection
    for start in range(0, COUNT, 100):
        items = [
            pb.UpsertItem(
                id=f"{number:03}",
                vector=model_pb2.Vector(values=VECTORS[number].tolist()),
                attributes={key: value(plain) for key, plain in ROWS[number].items()},
            )
            for number in range(start, start + 100)
        ]
        reply = stub.Upsert(pb.UpsertRequest(collection=name, items=items), timeout=TIMEOUT_S)
        assert not any(result.HasField("error") for result in reply.results)
    return made


@pytest.fixture(scope="module")
def rows(stub: Stub) -> Iterator[str]:
    """A collection of 300 items that the tests only read."""
    fill(stub, "rows")
    yield "rows"
    stub.DropCollection(pb.DropCollectionRequest(collection="rows"), timeout=TIMEOUT_S)


@pytest.fixture
def own(stub: Stub) -> Iterator[str]:
    """The same, for one test."""
    fill(stub, "own")
    yield "own"
    stub.DropCollection(pb.DropCollectionRequest(collection="own"), timeout=TIMEOUT_S)


def query() -> pb.SearchQuery:
    return pb.SearchQuery(vector=model_pb2.Vector(values=QUERY.tolist()))


def search(stub: Stub, name: str, **wanted: Any) -> list[tuple[int, float]]:
    defaults: dict[str, Any] = {"collection": name, "queries": [query()], "top_k": 10}
    asked = pb.SearchRequest(**(defaults | wanted))
    (result,) = stub.Search(asked, timeout=TIMEOUT_S).results
    assert result.WhichOneof("outcome") == "neighbors", result
    return [(int(neighbor.id), neighbor.score) for neighbor in result.neighbors.neighbors]


SCORES = UNIT @ (QUERY / np.linalg.norm(QUERY))
RANKED = [int(number) for number in np.argsort(-SCORES)]


def test_a_collection_says_what_it_declares(stub: Stub) -> None:
    external = pb.ExternalVectors(dimension=2)
    asked = pb.CreateCollectionRequest(
        collection="declared", external=external, attributes=TYPES, storage=pb.STORAGE_FLOAT16
    )
    made = stub.CreateCollection(asked, timeout=TIMEOUT_S).collection
    try:
        found = stub.GetCollection(pb.GetCollectionRequest(collection="declared"), timeout=TIMEOUT_S)
        for collection in (made, found.collection):
            assert dict(collection.attributes) == TYPES
            assert (collection.storage, collection.index_type) == (pb.STORAGE_FLOAT16, "flat")
        wrong = pb.UpsertItem(
            id="a", vector=model_pb2.Vector(values=[1, 2]), attributes={"number": value("seven")}
        )
        large = pb.UpsertItem(id="b", vector=model_pb2.Vector(values=[1e6, 2]))
        right = pb.UpsertItem(
            id="c", vector=model_pb2.Vector(values=[1, 2]), attributes={"score": value(3), "more": value("x")}
        )
        reply = stub.Upsert(pb.UpsertRequest(collection="declared", items=[wrong, large, right]))
        messages = [result.error.message for result in reply.results]
        assert "attribute 'number' is 'seven'; collection declared declares an int" in messages[0]
        assert messages[1:] == ["", ""]  # with the cosine it is normalised first
        got = stub.Get(pb.GetRequest(collection="declared", ids=["c"]), timeout=TIMEOUT_S).items[0]
        assert got.attributes["score"].double_value == 3.0
        assert got.attributes["more"].string_value == "x"
    finally:
        stub.DropCollection(pb.DropCollectionRequest(collection="declared"), timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attributes": {"a": 0}}, "the type of attribute 'a' is 0; expected one of ATTRIBUTE_TYPE_STRING"),
        ({"attributes": {"a": 9}}, "the type of attribute 'a' is 9"),
        ({"attributes": {"": 1}}, "attribute name ''; expected 1 to 64 bytes"),
        ({"attributes": {f"{n}": 1 for n in range(65)}}, "65 attributes are declared; expected at most 64"),
        ({"storage": 7}, "storage is 7; expected one of STORAGE_FLOAT32, STORAGE_FLOAT16"),
        ({"metric": 7}, "metric is 7; expected one of METRIC_COSINE"),
    ],
)
def test_what_cannot_be_declared_is_refused(stub: Stub, changes: dict[str, Any], words: str) -> None:
    external = pb.ExternalVectors(dimension=2)
    asked = pb.CreateCollectionRequest(collection="never", external=external, **changes)
    assert words in refusal(lambda: stub.CreateCollection(asked, timeout=TIMEOUT_S))


@pytest.mark.parametrize("case", FILTERS)
def test_filters(stub: Stub, rows: str, case: str) -> None:
    condition, keeps = FILTERS[case]
    kept = {number for number in range(COUNT) if keeps(ROWS[number])}
    expected = [number for number in RANKED if number in kept][:10]
    found = search(stub, rows, filter=condition)
    assert [number for number, _ in found] == expected
    np.testing.assert_allclose([score for _, score in found], SCORES[expected], atol=1e-5)
    counted = stub.Count(pb.CountRequest(collection=rows, filter=condition), timeout=TIMEOUT_S).count
    assert counted == len(kept)
    asked = pb.ScanRequest(collection=rows, filter=condition)
    assert [int(item.id) for item in stub.Scan(asked, timeout=TIMEOUT_S).items] == sorted(kept)


BAD_FILTERS: dict[str, tuple[pb.Filter, str]] = {
    "empty": (pb.Filter(), "a filter has no condition; expected one of equals, is_in, range"),
    "empty inside": (all_of(pb.Filter()), "a filter has no condition"),
    "no value": (
        pb.Filter(equals=pb.Equals(attribute="number")),
        "the filter's comparison with attribute 'number' has no value",
    ),
    "undeclared": (
        equals("free", "f1"),
        "attribute 'free'; expected one that the collection declares: even, label",
    ),
    "another type": (equals("number", "1"), "compares attribute 'number' with '1'; expected an int"),
    "a float for an int": (within("number", gt=1.5), "expected an int of 64 bits"),
    "a bool for an int": (equals("number", True), "expected an int of 64 bits"),
    "not finite": (equals("score", math.nan), "expected a finite float"),
    "no bounds": (within("number"), "has no bounds; expected one of gt, gte, lt and lte"),
    "a range of bools": (within("even", gt=True), "which is a bool; expected a number or a string"),
    "too many": (any_of(*[equals("number", 1)] * 300), "more than 256 conditions"),
    "too many values": (is_in("number", *range(10_001)), "lists 10,001 values; expected at most 10,000"),
}


def deep(levels: int) -> pb.Filter:
    condition = equals("number", 1)
    for _ in range(levels):
        condition = negation(condition)
    return condition


BAD_FILTERS["too deep"] = (deep(20), "deeper than 16 levels")


@pytest.mark.parametrize("case", BAD_FILTERS)
def test_filters_that_cannot_be_answered(stub: Stub, rows: str, case: str) -> None:
    condition, words = BAD_FILTERS[case]
    asked = pb.SearchRequest(collection=rows, queries=[query()], filter=condition)
    calls: list[Callable[[], object]] = [
        lambda: stub.Search(asked, timeout=TIMEOUT_S),
        lambda: stub.Count(pb.CountRequest(collection=rows, filter=condition), timeout=TIMEOUT_S),
        lambda: stub.Scan(pb.ScanRequest(collection=rows, filter=condition), timeout=TIMEOUT_S),
        lambda: stub.Delete(pb.DeleteRequest(collection=rows, filter=condition), timeout=TIMEOUT_S),
    ]
    for call in calls:
        assert words in refusal(call)
    assert stub.Count(pb.CountRequest(collection=rows), timeout=TIMEOUT_S).count == COUNT


def test_minimum_score(stub: Stub, rows: str) -> None:
    for floor in (0.5, 0.0, 2.0):
        found = search(stub, rows, min_score=floor, top_k=300)
        assert [number for number, _ in found] == [n for n in RANKED if SCORES[n] >= floor]
    assert "min_score is nan; expected a finite number" in refusal(
        lambda: search(stub, rows, min_score=math.nan)
    )


@pytest.mark.parametrize("most", [0, 1, 2, 1000])
def test_groups(stub: Stub, rows: str, most: int) -> None:
    group_by = pb.GroupBy(attribute="label", max_per_group=most)
    found = [number for number, _ in search(stub, rows, group_by=group_by, top_k=40)]
    seen = dict.fromkeys(LABELS, 0)
    expected = []
    for number in RANKED:
        label = ROWS[number].get("label")
        if label is not None:
            seen[label] += 1
            if seen[label] > (most or 1):
                continue
        expected.append(number)
    assert found == expected[:40]


def test_a_group_by_what_is_not_declared(stub: Stub, rows: str) -> None:
    group_by = pb.GroupBy(attribute="free")
    assert "group_by names attribute 'free'; expected one" in refusal(
        lambda: search(stub, rows, group_by=group_by)
    )


def test_pages(stub: Stub, rows: str) -> None:
    pages = [search(stub, rows, offset=offset, top_k=7) for offset in range(0, 70, 7)]
    assert [number for page in pages for number, _ in page] == RANKED[:70]
    assert search(stub, rows, offset=298, top_k=7) == search(stub, rows, top_k=300)[298:]
    assert search(stub, rows, offset=990, top_k=10) == []
    message = refusal(lambda: search(stub, rows, offset=991, top_k=10))
    assert message == "offset 991 and top_k 10 are 1001 together; expected at most 1000"


def test_all_options_together_and_a_stored_query(stub: Stub, rows: str) -> None:
    own_scores = UNIT @ UNIT[42]
    own_scores[42] = -2
    condition, keeps = FILTERS["or"]
    kept = [int(n) for n in np.argsort(-own_scores) if keeps(ROWS[n]) and own_scores[n] >= -0.5]
    counts: dict[Any, int] = {}
    diverse = []
    for number in kept:
        label = ROWS[number].get("label")
        counts[label] = counts.get(label, 0) + 1
        if label is None or counts[label] <= 3:
            diverse.append(number)
    found = search(
        stub,
        rows,
        queries=[pb.SearchQuery(id="042")],
        filter=condition,
        min_score=-0.5,
        group_by=pb.GroupBy(attribute="label", max_per_group=3),
        offset=2,
        top_k=5,
        recall=1.0,
    )
    assert [number for number, _ in found] == diverse[2:7]


@pytest.mark.parametrize("recall", [-0.5, 1.5, math.nan])
def test_a_recall_that_cannot_be(stub: Stub, rows: str, recall: float) -> None:
    assert f"recall is {recall}; expected above 0" in refusal(lambda: search(stub, rows, recall=recall))


def expanded(neighbors: list[int], alpha: float) -> Any:
    """By the paper: the query and its neighbours, each weighted by its score to the power of alpha."""
    total = QUERY / np.linalg.norm(QUERY) + sum(max(SCORES[n], 0) ** alpha * UNIT[n] for n in neighbors)
    return UNIT @ (total / np.linalg.norm(total))


@pytest.mark.parametrize(("neighbors", "alpha"), [(0, None), (3, 1.0), (5, 0.0), (300, 2.0)])
def test_query_expansion(stub: Stub, rows: str, neighbors: int, alpha: float | None) -> None:
    expansion = pb.QueryExpansion(neighbors=neighbors, alpha=alpha)
    scores = expanded(RANKED[: neighbors or 10], 3.0 if alpha is None else alpha)
    found = search(stub, rows, query_expansion=expansion, top_k=20)
    assert [number for number, _ in found] == [int(n) for n in np.argsort(-scores)[:20]]
    np.testing.assert_allclose([score for _, score in found], np.sort(scores)[::-1][:20], atol=1e-5)
    assert found != search(stub, rows, top_k=20)


def test_query_expansion_keeps_to_the_filter_in_both_passes(stub: Stub, rows: str) -> None:
    condition, keeps = FILTERS["and"]
    kept = [number for number in RANKED if keeps(ROWS[number])]
    scores = expanded(kept[:4], 3.0)
    found = search(stub, rows, query_expansion=pb.QueryExpansion(neighbors=4), filter=condition, offset=1)
    expected = [int(n) for n in np.argsort(-scores) if keeps(ROWS[n])][1:11]
    assert [number for number, _ in found] == expected


def test_query_expansion_leaves_a_stored_query_out_of_its_result(stub: Stub, rows: str) -> None:
    found = search(stub, rows, queries=[pb.SearchQuery(id="007")], query_expansion=pb.QueryExpansion())
    assert len(found) == 10
    assert 7 not in dict(found)


def test_query_expansion_at_its_limits(stub: Stub, rows: str) -> None:
    for alpha in (-1.0, math.inf):
        expansion = pb.QueryExpansion(alpha=alpha)
        assert f"query_expansion has alpha {alpha}; expected 0 or more" in refusal(
            lambda: search(stub, rows, query_expansion=expansion)  # noqa: B023 - called at once
        )
    many = pb.QueryExpansion(neighbors=1001)
    assert "has 1001 neighbors; expected at most 1000" in refusal(
        lambda: search(stub, rows, query_expansion=many)
    )
    several = pb.QueryExpansion(neighbors=1000)
    assert "11 queries × query_expansion's neighbors 1000 are 11,000 neighbours" in refusal(
        lambda: search(stub, rows, query_expansion=several, queries=[query()] * 11)
    )


def test_query_expansion_needs_similarities(stub: Stub) -> None:
    fill(stub, "distances", pb.METRIC_L2)
    try:
        message = refusal(lambda: search(stub, "distances", query_expansion=pb.QueryExpansion()))
        assert "collection distances has metric l2, whose scores are negative; expected" in message
    finally:
        stub.DropCollection(pb.DropCollectionRequest(collection="distances"), timeout=TIMEOUT_S)


def test_a_bad_query_is_its_own_error_beside_expanded_ones(stub: Stub, rows: str) -> None:
    asked = pb.SearchRequest(
        collection=rows,
        queries=[pb.SearchQuery(id="nobody"), query()],
        query_expansion=pb.QueryExpansion(neighbors=2),
    )
    first, second = stub.Search(asked, timeout=TIMEOUT_S).results
    assert first.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(second.neighbors.neighbors) == 10


def test_scan_gives_all_items_page_by_page(stub: Stub, rows: str) -> None:
    after, seen, pages = "", [], 0
    while True:
        asked = pb.ScanRequest(collection=rows, after=after, page_size=64, include_vectors=pages == 0)
        reply = stub.Scan(asked, timeout=TIMEOUT_S)
        for item in reply.items:
            number = int(item.id)
            assert {
                key: getattr(each, each.WhichOneof("kind") or "") for key, each in item.attributes.items()
            } == ROWS[number]
            assert item.HasField("vector") == (pages == 0)
            if pages == 0:
                np.testing.assert_allclose(item.vector.values, UNIT[number], atol=1e-6)
            seen.append(item.id)
        pages += 1
        if reply.last:
            break
        after = seen[-1]
    assert pages == 5
    assert seen == [f"{number:03}" for number in range(COUNT)]
    assert stub.Scan(pb.ScanRequest(collection=rows), timeout=TIMEOUT_S).last
    assert "page_size is 10001; expected at most 10,000" in refusal(
        lambda: stub.Scan(pb.ScanRequest(collection=rows, page_size=10_001), timeout=TIMEOUT_S)
    )


def test_delete_by_a_filter(stub: Stub, own: str) -> None:
    condition, keeps = FILTERS["in"]
    kept = {number for number in range(COUNT) if keeps(ROWS[number])}
    asked = pb.DeleteRequest(collection=own, filter=condition)
    assert stub.Delete(asked, timeout=TIMEOUT_S).deleted == len(kept)
    assert stub.Delete(asked, timeout=TIMEOUT_S).deleted == 0
    assert stub.Count(pb.CountRequest(collection=own), timeout=TIMEOUT_S).count == COUNT - len(kept)
    found = search(stub, own, top_k=1000)
    assert [number for number, _ in found] == [number for number in RANKED if number not in kept]

    both = pb.DeleteRequest(collection=own, filter=condition, ids=["001"])
    assert "has 1 ids and a filter; expected either" in refusal(lambda: stub.Delete(both, timeout=TIMEOUT_S))
    neither = pb.DeleteRequest(collection=own)
    assert "the request has 0 ids; expected 1 to 256" in refusal(
        lambda: stub.Delete(neither, timeout=TIMEOUT_S)
    )
    assert "no condition" in refusal(
        lambda: stub.Delete(pb.DeleteRequest(collection=own, filter=pb.Filter()), timeout=TIMEOUT_S)
    )
    everything = pb.DeleteRequest(collection=own, filter=all_of())
    assert stub.Delete(everything, timeout=TIMEOUT_S).deleted == COUNT - len(kept)


def test_replaced_items_are_found_by_what_they_are_now(stub: Stub, own: str) -> None:
    item = pb.UpsertItem(
        id="003",
        vector=model_pb2.Vector(values=QUERY.tolist()),
        attributes={"label": value("new"), "number": value(-1)},
    )
    stub.Upsert(pb.UpsertRequest(collection=own, items=[item]), timeout=TIMEOUT_S)
    ((number, score),) = search(stub, own, filter=equals("label", "new"))
    assert number == 3
    assert score == pytest.approx(1.0)
    assert search(stub, own, filter=equals("number", 3)) == []


def test_flush_waits_and_changes_nothing(stub: Stub, rows: str) -> None:
    stub.Flush(pb.FlushRequest(collection=rows), timeout=TIMEOUT_S)
    assert [number for number, _ in search(stub, rows)] == RANKED[:10]
    refusal(
        lambda: stub.Flush(pb.FlushRequest(collection="nobody's"), timeout=TIMEOUT_S),
        grpc.StatusCode.NOT_FOUND,
    )
