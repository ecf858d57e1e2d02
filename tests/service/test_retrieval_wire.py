"""Retrieval over the wire: images and vectors in, neighbours out, and nothing acknowledged is lost."""

import random
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from fovea.v1 import image_pb2, model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb
from numpy.typing import NDArray

from service.preprocess import Preprocessing, preprocess
from tests.packages import EMBEDDING_DIMENSION, SIZE, colors_embedding, write_colors
from tests.servers import ServerProcess

TIMEOUT_S = 30
SPEC = Preprocessing(SIZE, SIZE, SIZE, "bilinear")
Stub = retrieval_pb2_grpc.RetrievalServiceStub


def pixels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def image(seed: int) -> image_pb2.Image:
    raw = image_pb2.RawImage(data=pixels(seed).tobytes(), height=SIZE, width=SIZE)
    return image_pb2.Image(raw=raw)


def embedding(seed: int) -> NDArray[np.float32]:
    return colors_embedding(preprocess(pixels(seed), SPEC))


def vector(values: NDArray[np.float32] | list[float]) -> model_pb2.Vector:
    return model_pb2.Vector(values=list(values))


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(server.address) as channel:
        yield Stub(channel)


@pytest.fixture
def photos_collection(stub: Stub, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of 40 images, `0` to `39`, of the default model."""
    name = request.node.name.replace("[", "-").replace("]", "")
    stub.CreateCollection(pb.CreateCollectionRequest(collection=name), timeout=TIMEOUT_S)
    items = [
        pb.UpsertItem(
            id=str(i),
            image=image(i),
            attributes={
                "even": pb.AttributeValue(bool_value=i % 2 == 0),
                "number": pb.AttributeValue(int_value=i),
                "half": pb.AttributeValue(double_value=i / 2),
                "name": pb.AttributeValue(string_value=f"image {i} ☃"),
            },
        )
        for i in range(40)
    ]
    reply = stub.Upsert(pb.UpsertRequest(collection=name, items=items), timeout=TIMEOUT_S)
    assert not any(result.HasField("error") for result in reply.results)
    assert reply.model.name == "colors"
    yield name
    stub.DropCollection(pb.DropCollectionRequest(collection=name), timeout=TIMEOUT_S)


def neighbors(result: pb.SearchResult) -> list[tuple[str, float]]:
    assert result.WhichOneof("outcome") == "neighbors", result
    return [(neighbor.id, neighbor.score) for neighbor in result.neighbors.neighbors]


def test_search_by_image_vector_and_id_agree_with_brute_force(stub: Stub, photos_collection: str) -> None:
    scores = np.stack([embedding(i) for i in range(40)]) @ embedding(100)
    expected = [str(i) for i in np.argsort(-scores)[:7]]
    queries = [
        pb.SearchQuery(image=image(100)),
        pb.SearchQuery(vector=vector(embedding(100))),
        pb.SearchQuery(vector=vector(embedding(100) * 50)),  # the cosine knows no length
        pb.SearchQuery(id="3"),
    ]
    reply = stub.Search(
        pb.SearchRequest(collection=photos_collection, queries=queries, top_k=7), timeout=TIMEOUT_S
    )
    assert reply.model.name == "colors"
    for result in reply.results[:3]:
        found = neighbors(result)
        assert [each[0] for each in found] == expected
        np.testing.assert_allclose([each[1] for each in found], np.sort(scores)[::-1][:7], atol=1e-5)
    by_id = neighbors(reply.results[3])
    assert len(by_id) == 7
    assert "3" not in dict(by_id)
    attributes = reply.results[0].neighbors.neighbors[0].attributes
    number = int(expected[0])
    assert attributes["number"].int_value == number
    assert attributes["half"].double_value == number / 2
    assert attributes["even"].bool_value == (number % 2 == 0)
    assert attributes["name"].string_value == f"image {number} ☃"


def test_a_reply_names_the_model_that_made_the_query_vectors(stub: Stub, photos_collection: str) -> None:
    def model(*queries: pb.SearchQuery) -> str:
        request = pb.SearchRequest(collection=photos_collection, queries=queries)
        return str(stub.Search(request, timeout=TIMEOUT_S).model.name)

    stored, own = pb.SearchQuery(id="3"), pb.SearchQuery(vector=vector(embedding(3)))
    assert model(stored) == "colors"
    assert model(own, stored) == "colors"
    assert model(own) == ""  # nobody here knows what made it


def test_the_default_is_ten_neighbours_and_no_more_than_there_are(stub: Stub, photos_collection: str) -> None:
    query = [pb.SearchQuery(image=image(1))]
    reply = stub.Search(pb.SearchRequest(collection=photos_collection, queries=query), timeout=TIMEOUT_S)
    assert len(neighbors(reply.results[0])) == 10
    name, score = neighbors(reply.results[0])[0]
    assert name == "1"
    assert score == pytest.approx(1.0)
    everything = pb.SearchRequest(collection=photos_collection, queries=query, top_k=1000)
    assert len(neighbors(stub.Search(everything, timeout=TIMEOUT_S).results[0])) == 40
    with pytest.raises(grpc.RpcError, match="top_k is 1001; expected at most 1000"):
        stub.Search(
            pb.SearchRequest(collection=photos_collection, queries=query, top_k=1001), timeout=TIMEOUT_S
        )


def test_get_delete_count_and_replace(stub: Stub, photos_collection: str) -> None:
    def count() -> int:
        return int(stub.Count(pb.CountRequest(collection=photos_collection), timeout=TIMEOUT_S).count)

    def get(*ids: str, include_vectors: bool = False) -> list[pb.Item]:
        asked = pb.GetRequest(collection=photos_collection, ids=ids, include_vectors=include_vectors)
        return list(stub.Get(asked, timeout=TIMEOUT_S).items)

    assert count() == 40
    assert [item.id for item in get("7", "nobody", "2")] == ["7", "2"]
    assert not get("7")[0].HasField("vector")
    np.testing.assert_allclose(get("7", include_vectors=True)[0].vector.values, embedding(7), rtol=1e-4)

    deleted = stub.Delete(
        pb.DeleteRequest(collection=photos_collection, ids=["7", "nobody"]), timeout=TIMEOUT_S
    )
    assert deleted.deleted == 1
    assert count() == 39
    assert not get("7")

    replaced = [pb.UpsertItem(id="2", image=image(200))]
    stub.Upsert(pb.UpsertRequest(collection=photos_collection, items=replaced), timeout=TIMEOUT_S)
    assert count() == 39
    found = stub.Search(
        pb.SearchRequest(collection=photos_collection, queries=[pb.SearchQuery(image=image(200))], top_k=1),
        timeout=TIMEOUT_S,
    )
    ((name, score),) = neighbors(found.results[0])
    assert name == "2"
    assert score == pytest.approx(1.0)
    assert not get("2")[0].attributes


def test_a_bad_item_is_its_own_error_and_the_others_are_written(stub: Stub, photos_collection: str) -> None:
    items = [
        pb.UpsertItem(id="good", image=image(300)),
        pb.UpsertItem(id="broken image", image=image_pb2.Image(encoded=b"?")),
        pb.UpsertItem(id="other dimension", vector=vector([1.0, 2.0])),
        pb.UpsertItem(id="zero", vector=vector([0.0] * EMBEDDING_DIMENSION)),
        pb.UpsertItem(id="not finite", vector=vector([float("nan")] * EMBEDDING_DIMENSION)),
        pb.UpsertItem(id="", image=image(301)),
        pb.UpsertItem(id="nothing"),
        pb.UpsertItem(id="valueless", image=image(303), attributes={"empty": pb.AttributeValue()}),
        pb.UpsertItem(id="good too", vector=vector(embedding(302))),
    ]
    reply = stub.Upsert(pb.UpsertRequest(collection=photos_collection, items=items), timeout=TIMEOUT_S)
    codes = {result.id: result.error.code for result in reply.results}
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert codes == {
        "good": 0,
        "broken image": invalid,
        "other dimension": grpc.StatusCode.FAILED_PRECONDITION.value[0],
        "zero": invalid,
        "not finite": invalid,
        "": invalid,
        "nothing": invalid,
        "valueless": invalid,
        "good too": 0,
    }
    words = {result.id: result.error.message for result in reply.results}
    assert "'other dimension' has dimension 2; " in words["other dimension"]
    assert f"has {EMBEDDING_DIMENSION}" in words["other dimension"]
    assert "attribute 'empty' has no value" in words["valueless"]
    ids = [item.id for item in items]
    there = stub.Get(pb.GetRequest(collection=photos_collection, ids=ids), timeout=TIMEOUT_S).items
    assert [item.id for item in there] == ["good", "good too"]


def test_a_bad_query_is_its_own_error(stub: Stub, photos_collection: str) -> None:
    queries = [
        pb.SearchQuery(image=image(1)),
        pb.SearchQuery(image=image_pb2.Image(encoded=b"?")),
        pb.SearchQuery(vector=vector([1.0])),
        pb.SearchQuery(vector=vector([float("inf")] * EMBEDDING_DIMENSION)),
        pb.SearchQuery(id="nobody"),
        pb.SearchQuery(),
        pb.SearchQuery(vector=vector(embedding(2))),
    ]
    reply = stub.Search(
        pb.SearchRequest(collection=photos_collection, queries=queries, top_k=1), timeout=TIMEOUT_S
    )
    assert neighbors(reply.results[0])[0][0] == "1"
    assert neighbors(reply.results[6])[0][0] == "2"
    status = grpc.StatusCode
    assert [result.error.code for result in reply.results[1:6]] == [
        code.value[0]
        for code in (
            status.INVALID_ARGUMENT,
            status.FAILED_PRECONDITION,
            status.INVALID_ARGUMENT,
            status.NOT_FOUND,
            status.INVALID_ARGUMENT,
        )
    ]


def test_collections_say_what_they_are(stub: Stub, photos_collection: str) -> None:
    external = pb.ExternalVectors(dimension=2, fingerprint="somebody's:fp32")
    made = stub.CreateCollection(
        pb.CreateCollectionRequest(collection="external", external=external, metric=pb.METRIC_L2),
        timeout=TIMEOUT_S,
    ).collection
    try:
        assert (made.dimension, made.metric, made.fingerprint, made.count) == (
            2,
            pb.METRIC_L2,
            "somebody's:fp32",
            0,
        )
        assert not made.HasField("model")
        listed = stub.ListCollections(pb.ListCollectionsRequest(), timeout=TIMEOUT_S).collections
        assert {each.name: each.count for each in listed} == {"external": 0, photos_collection: 40}
        own = stub.GetCollection(pb.GetCollectionRequest(collection=photos_collection), timeout=TIMEOUT_S)
        assert own.collection.model.name == "colors"
        assert own.collection.dimension == EMBEDDING_DIMENSION
        assert own.collection.metric == pb.METRIC_COSINE

        with pytest.raises(grpc.RpcError) as caught:
            stub.CreateCollection(pb.CreateCollectionRequest(collection="external"), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        images = pb.UpsertRequest(collection="external", items=[pb.UpsertItem(id="a", image=image(1))])
        with pytest.raises(grpc.RpcError) as caught:
            stub.Upsert(images, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "somebody's:fp32" in (caught.value.details() or "")
        assert "colors (version 1, fingerprint" in (caught.value.details() or "")
        stated = pb.UpsertRequest(
            collection="external", fingerprint="else's", items=[pb.UpsertItem(id="a", vector=vector([1, 2]))]
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.Upsert(stated, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "else's" in (caught.value.details() or "")
        assert "somebody's:fp32" in (caught.value.details() or "")

        for values, name in (([0.0, 0.0], "origin"), ([3.0, 4.0], "five away")):
            item = pb.UpsertItem(id=name, vector=vector(values))
            stub.Upsert(pb.UpsertRequest(collection="external", items=[item]), timeout=TIMEOUT_S)
        query = [pb.SearchQuery(vector=vector([0.0, 0.0]))]
        found = stub.Search(pb.SearchRequest(collection="external", queries=query), timeout=TIMEOUT_S)
        assert neighbors(found.results[0]) == [("origin", 0.0), ("five away", -5.0)]
    finally:
        stub.DropCollection(pb.DropCollectionRequest(collection="external"), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Count(pb.CountRequest(collection="external"), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert photos_collection in (caught.value.details() or "")


def test_a_collection_name_or_metric_that_cannot_be_is_refused(stub: Stub) -> None:
    for fields in ({"collection": ""}, {"collection": "../x"}, {"collection": "a", "metric": 77}):
        with pytest.raises(grpc.RpcError) as caught:
            stub.CreateCollection(pb.CreateCollectionRequest(**fields), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_searches_are_right_while_others_write(stub: Stub, photos_collection: str) -> None:
    done = threading.Event()
    rounds = threading.Semaphore(0)

    def write() -> None:
        seed = 1000
        while not done.is_set():
            items = [pb.UpsertItem(id=f"noise {i}", image=image(seed + i)) for i in range(8)]
            reply = stub.Upsert(
                pb.UpsertRequest(collection=photos_collection, items=items), timeout=TIMEOUT_S
            )
            assert not any(result.HasField("error") for result in reply.results)
            ids = [item.id for item in items[:4]]
            deleted = stub.Delete(
                pb.DeleteRequest(collection=photos_collection, ids=ids), timeout=TIMEOUT_S
            ).deleted
            assert deleted == 4
            rounds.release()
            seed += 8

    def search(seed: int) -> str:
        queries = [pb.SearchQuery(image=image(seed))]
        asked = pb.SearchRequest(collection=photos_collection, queries=queries, top_k=1)
        return neighbors(stub.Search(asked, timeout=TIMEOUT_S).results[0])[0][0]

    with ThreadPoolExecutor(6) as pool:
        writer = pool.submit(write)
        try:
            for _ in range(5):  # searches begin and end while the writer is at work
                assert rounds.acquire(timeout=TIMEOUT_S)
                found = list(pool.map(search, range(40)))
                assert found == [str(i) for i in range(40)]
                assert rounds.acquire(timeout=TIMEOUT_S)
        finally:
            done.set()
        writer.result()


def test_a_write_that_the_disk_refuses_changes_nothing(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = Stub(channel)
        stub.CreateCollection(pb.CreateCollectionRequest(collection="c"), timeout=TIMEOUT_S)
        first = pb.UpsertRequest(collection="c", items=[pb.UpsertItem(id="first", image=image(1))])
        stub.Upsert(first, timeout=TIMEOUT_S)
        second = pb.UpsertRequest(collection="c", items=[pb.UpsertItem(id="second", image=image(2))])
        pid, limit = server.process.pid, resource.RLIMIT_FSIZE
        free = resource.prlimit(pid, limit, (1024, resource.RLIM_INFINITY))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Upsert(second, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "nothing was changed by this call" in (caught.value.details() or "")
        assert stub.Count(pb.CountRequest(collection="c"), timeout=TIMEOUT_S).count == 1
        resource.prlimit(pid, limit, free)
        stub.Upsert(second, timeout=TIMEOUT_S)
        assert stub.Count(pb.CountRequest(collection="c"), timeout=TIMEOUT_S).count == 2


def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    chance = random.Random(7)
    acknowledged: set[str] = set()
    deleted: set[str] = set()
    for turn in range(3):
        with (
            ServerProcess(tmp_path / "models", tmp_path / "index") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub = Stub(channel)
            if turn == 0:
                stub.CreateCollection(pb.CreateCollectionRequest(collection="c"), timeout=TIMEOUT_S)
            check(stub, acknowledged, deleted)
            # Somewhere in the writes that follow the first twenty.
            killer = threading.Timer(chance.random() * 0.05, server.process.kill)
            with pytest.raises(grpc.RpcError) as caught:
                write_until_killed(stub, str(turn), acknowledged, deleted, killer)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            killer.join()
            server.wait()
    assert len(acknowledged) + len(deleted) >= 3 * 20
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        check(Stub(channel), acknowledged, deleted)


def write_until_killed(
    stub: Stub, prefix: str, acknowledged: set[str], deleted: set[str], killer: threading.Timer
) -> None:
    for number in range(100_000):
        if number == 20:
            killer.start()
        name = f"{prefix}/{number}"
        item = pb.UpsertItem(id=name, image=image(number))
        stub.Upsert(pb.UpsertRequest(collection="c", items=[item]), timeout=TIMEOUT_S)
        acknowledged.add(name)
        if number % 3 == 0:
            acknowledged.discard(name)  # whether it is still there is open until the reply
            stub.Delete(pb.DeleteRequest(collection="c", ids=[name]), timeout=TIMEOUT_S)
            deleted.add(name)


def check(stub: Stub, acknowledged: set[str], deleted: set[str]) -> None:
    for names, expected in ((sorted(acknowledged), True), (sorted(deleted), False)):
        for start in range(0, len(names), 200):
            part = names[start : start + 200]
            there = stub.Get(pb.GetRequest(collection="c", ids=part), timeout=TIMEOUT_S).items
            assert [item.id for item in there] == (part if expected else [])
    for name in sorted(acknowledged)[:5]:
        queries = [pb.SearchQuery(image=image(int(name.split("/")[1])))]
        found = stub.Search(pb.SearchRequest(collection="c", queries=queries, top_k=3), timeout=TIMEOUT_S)
        assert neighbors(found.results[0])[0][1] == pytest.approx(1.0)
