"""Retrieval over the wire at its limits: counts, sizes of replies, long values, and what the log says."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from fovea.v1 import image_pb2, model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.refusal import refusal

TIMEOUT_S = 30
# Of the server with small messages.
MESSAGE_BYTES = 1_000_000
ATTRIBUTE_BYTES = 32_000
WIDE_DIMENSION = 65_536
Stub = retrieval_pb2_grpc.RetrievalServiceStub


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(server.address) as channel:
        yield Stub(channel)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """Of a server with small messages."""
    folder = tmp_path_factory.mktemp("tight")
    write_colors(folder / "models")
    options = ("--max-message-bytes", str(MESSAGE_BYTES))
    with (
        ServerProcess(folder / "models", folder / "index", *options) as process,
        grpc.insecure_channel(process.address) as channel,
    ):
        yield Stub(channel)


def collection(stub: Stub, name: str, dimension: int) -> Iterator[str]:
    external = pb.ExternalVectors(dimension=dimension)
    stub.CreateCollection(pb.CreateCollectionRequest(collection=name, external=external), timeout=TIMEOUT_S)
    yield name
    stub.DropCollection(pb.DropCollectionRequest(collection=name), timeout=TIMEOUT_S)


@pytest.fixture
def small(stub: Stub) -> Iterator[str]:
    """An empty collection of dimension 2."""
    yield from collection(stub, "small", 2)


@pytest.fixture
def heavy(tight: Stub) -> Iterator[str]:
    """40 items, `0` to `39`, with 32 kB of attributes each: more than a message can have."""
    for name in collection(tight, "heavy", 2):
        for start in range(0, 40, 20):
            text = pb.AttributeValue(string_value="x" * ATTRIBUTE_BYTES)
            upsert(tight, name, *(item(str(i), [1, i], text=text) for i in range(start, start + 20)))
        yield name


@pytest.fixture
def wide(tight: Stub) -> Iterator[str]:
    """5 items, `0` to `4`, of 65,536 dimensions: more than a message can have."""
    for name in collection(tight, "wide", WIDE_DIMENSION):
        for i in range(5):
            upsert(tight, name, item(str(i), np.full(WIDE_DIMENSION, i + 1, np.float32)))
        yield name


def item(name: str, values: Any, **attributes: pb.AttributeValue) -> pb.UpsertItem:
    return pb.UpsertItem(id=name, vector=model_pb2.Vector(values=values), attributes=attributes)


def upsert(stub: Stub, name: str, *items: pb.UpsertItem) -> list[pb.UpsertResult]:
    reply = stub.Upsert(pb.UpsertRequest(collection=name, items=items), timeout=TIMEOUT_S)
    return list(reply.results)


def search(stub: Stub, name: str, queries: int, top_k: int) -> pb.SearchResponse:
    query = pb.SearchQuery(vector=model_pb2.Vector(values=[1, 1]))
    asked = pb.SearchRequest(collection=name, queries=[query] * queries, top_k=top_k)
    return stub.Search(asked, timeout=TIMEOUT_S)


def test_neighbours_of_a_request_are_bounded(stub: Stub, small: str) -> None:
    upsert(stub, small, item("a", [1, 0]))
    for queries, top_k in ((10, 1000), (250, 40)):
        assert len(search(stub, small, queries, top_k).results) == queries
    assert "64 queries × top_k 1000 are 64,000 neighbours; expected at most 10,000" in refusal(
        lambda: search(stub, small, 64, 1000)
    )
    assert "11 queries × top_k 1000 are 11,000" in refusal(lambda: search(stub, small, 11, 1000))


def test_neighbours_larger_than_a_message_are_refused(tight: Stub, heavy: str) -> None:
    found = search(tight, heavy, 6, 5).results
    assert [len(result.neighbors.neighbors) for result in found] == [5] * 6
    text = found[5].neighbors.neighbors[4].attributes["text"].string_value
    assert text == "x" * ATTRIBUTE_BYTES
    for queries in (1, 250):
        each = len('{"text":""}') + ATTRIBUTE_BYTES + 4
        size = queries * sum(len(str(i)) + each for i in range(40))
        message = refusal(lambda: search(tight, heavy, queries, 40))  # noqa: B023 - called at once
        assert f"the reply would take {size:,} bytes; expected at most {MESSAGE_BYTES:,}: " in message
        assert "fewer neighbours, or send fewer queries" in message


def test_a_stored_query_does_not_count_itself(tight: Stub, heavy: str) -> None:
    """30 of 32 kB fit; were each query's own item counted too, these would be 60."""
    queries = [pb.SearchQuery(id=str(i)) for i in range(30)]
    asked = pb.SearchRequest(collection=heavy, queries=queries, top_k=1)
    results = tight.Search(asked, timeout=TIMEOUT_S).results
    assert [len(result.neighbors.neighbors) for result in results] == [1] * 30
    assert all(
        result.neighbors.neighbors[0].id != query.id for result, query in zip(results, queries, strict=True)
    )


def test_a_reply_that_grows_on_the_wire_is_refused_too(tight: Stub) -> None:
    """An int of -1 takes two bytes as JSON and ten as a varint."""
    for name in collection(tight, "minus", 2):
        attributes = {f"{n:04}": pb.AttributeValue(int_value=-1) for n in range(5000)}
        for i in range(10):
            upsert(tight, name, item(str(i), [1, i], **attributes))
        stored = 10 * 5000 * len('"0000":-1,')
        assert stored < 0.6 * MESSAGE_BYTES
        assert search(tight, name, 1, 8).ByteSize() > stored
        message = refusal(lambda: search(tight, name, 1, 10))  # noqa: B023 - called at once
        assert f"expected at most {MESSAGE_BYTES:,}: ask for fewer neighbours" in message
        asked = pb.GetRequest(collection=name, ids=[str(i) for i in range(10)])
        message = refusal(lambda: tight.Get(asked, timeout=TIMEOUT_S))  # noqa: B023 - called at once
        assert f"expected at most {MESSAGE_BYTES:,}: ask for fewer ids" in message


def test_items_larger_than_a_message_are_refused(tight: Stub, wide: str, heavy: str) -> None:
    def get(name: str, count: int, *, include_vectors: bool) -> list[pb.Item]:
        ids = [str(i) for i in range(count)]
        asked = pb.GetRequest(collection=name, ids=ids, include_vectors=include_vectors)
        return list(tight.Get(asked, timeout=TIMEOUT_S).items)

    assert len(get(wide, 5, include_vectors=False)) == 5
    assert [len(each.vector.values) for each in get(wide, 3, include_vectors=True)] == [WIDE_DIMENSION] * 3
    message = refusal(lambda: get(wide, 5, include_vectors=True))
    assert f"would take {5 * (len('0') + len('{}') + 4 * WIDE_DIMENSION):,} bytes" in message
    assert "ask for fewer ids, or leave the vectors out" in message
    assert len(get(heavy, 30, include_vectors=False)) == 30
    assert "ask for fewer ids" in refusal(lambda: get(heavy, 40, include_vectors=False))


def test_counts_outside_the_limits_are_refused(stub: Stub, small: str) -> None:
    def call(kind: str, count: int) -> object:
        match kind:
            case "items":
                return stub.Upsert(pb.UpsertRequest(collection=small, items=[pb.UpsertItem()] * count))
            case "queries":
                return stub.Search(pb.SearchRequest(collection=small, queries=[pb.SearchQuery()] * count))
            case "ids":
                return stub.Get(pb.GetRequest(collection=small, ids=["a"] * count))
        return stub.Delete(pb.DeleteRequest(collection=small, ids=["a"] * count))

    for kind in ("items", "queries", "ids", "deleted ids"):
        for count in (0, 257):
            message = refusal(lambda: call(kind, count))  # noqa: B023 - called at once
            assert message == f"the request has {count} {kind.split()[-1]}; expected 1 to 256"


def test_long_values_are_cut_in_statuses(stub: Stub, small: str) -> None:
    long = "é" * 2_500_000
    vector = model_pb2.Vector(values=[1, 2])
    one = [pb.UpsertItem(id="a", vector=vector)]
    codes = grpc.StatusCode
    calls: list[tuple[Callable[[], object], grpc.StatusCode]] = [
        (lambda: stub.Count(pb.CountRequest(collection=long)), codes.NOT_FOUND),
        (lambda: stub.CreateCollection(pb.CreateCollectionRequest(collection=long)), codes.INVALID_ARGUMENT),
        (lambda: stub.Upsert(pb.UpsertRequest(collection=long, items=one)), codes.NOT_FOUND),
    ]
    for call, code in calls:
        message = refusal(call, code)
        assert "é" * 70 in message
        assert len(message) < 500

    results = upsert(
        stub,
        small,
        item(long, [1, 2]),
        item("a", [1, 2], **{long: pb.AttributeValue()}),
        item("b", [1, 2], **{long: pb.AttributeValue(double_value=float("nan"))}),
    )
    assert [len(result.id) for result in results] == [512, 1, 1]
    for result in results:
        assert result.error.code == codes.INVALID_ARGUMENT.value[0]
        assert "é" * 70 in result.error.message
        assert len(result.error.message) < 500
    queries = [pb.SearchQuery(id=long)]
    found = stub.Search(pb.SearchRequest(collection=small, queries=queries), timeout=TIMEOUT_S)
    assert found.results[0].error.code == codes.NOT_FOUND.value[0]
    assert len(found.results[0].error.message) < 500


def test_a_long_fingerprint_is_cut_in_the_status(stub: Stub) -> None:
    external = pb.ExternalVectors(dimension=2, fingerprint="mine")
    made = pb.CreateCollectionRequest(collection="pinned", external=external)
    stub.CreateCollection(made, timeout=TIMEOUT_S)
    try:
        asked = pb.UpsertRequest(collection="pinned", fingerprint="f" * 1_000_000, items=[item("a", [1, 2])])
        message = refusal(lambda: stub.Upsert(asked, timeout=TIMEOUT_S), grpc.StatusCode.FAILED_PRECONDITION)
        assert "'mine'" in message
        assert len(message) < 500
    finally:
        stub.DropCollection(pb.DropCollectionRequest(collection="pinned"), timeout=TIMEOUT_S)


def logged(server: ServerProcess, stub: Stub, request_id: str) -> list[dict[str, Any]]:
    """The lines of a request that was answered; a later one's shows that they have all come."""
    marker = f"after-{request_id}"
    with pytest.raises(grpc.RpcError):
        stub.Count(pb.CountRequest(), timeout=TIMEOUT_S, metadata=(("x-request-id", marker),))
    deadline = time.monotonic() + TIMEOUT_S
    while not any(line.get("request_id") == marker for line in server.logs):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [line for line in server.logs if line.get("request_id") == request_id]


def test_failed_items_and_queries_are_logged_once_a_request(
    server: ServerProcess, stub: Stub, small: str
) -> None:
    items = [item("a", [1, 0]), item("b", [0, 0]), item("c", [1, 2, 3]), item("d", [0, 1])]
    sent = pb.UpsertRequest(collection=small, items=items)
    stub.Upsert(sent, timeout=TIMEOUT_S, metadata=(("x-request-id", "upsert-1"),))
    [line] = logged(server, stub, "upsert-1")
    assert (line["event"], line["level"], line["collection"], line["count"]) == (
        "items_failed",
        "warning",
        small,
        2,
    )
    assert line["first_error"].startswith("the vector of item 'b' is zero")

    queries = [pb.SearchQuery(id="a"), pb.SearchQuery(id="nobody"), pb.SearchQuery(id="neither")]
    asked = pb.SearchRequest(collection=small, queries=queries)
    stub.Search(asked, timeout=TIMEOUT_S, metadata=(("x-request-id", "search-1"),))
    [line] = logged(server, stub, "search-1")
    assert (line["event"], line["count"]) == ("queries_failed", 2)
    assert "'nobody'" in line["first_error"]

    stub.Upsert(
        pb.UpsertRequest(collection=small, items=items[:1]),
        timeout=TIMEOUT_S,
        metadata=(("x-request-id", "upsert-2"),),
    )
    assert logged(server, stub, "upsert-2") == []


def test_a_failed_image_of_an_item_is_logged_once(server: ServerProcess, stub: Stub) -> None:
    stub.CreateCollection(pb.CreateCollectionRequest(collection="images"), timeout=TIMEOUT_S)
    try:
        broken = pb.UpsertItem(id="a", image=image_pb2.Image(encoded=b"?"))
        stub.Upsert(
            pb.UpsertRequest(collection="images", items=[broken]),
            timeout=TIMEOUT_S,
            metadata=(("x-request-id", "upsert-3"),),
        )
        assert len(logged(server, stub, "upsert-3")) == 1
    finally:
        stub.DropCollection(pb.DropCollectionRequest(collection="images"), timeout=TIMEOUT_S)
