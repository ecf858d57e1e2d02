"""Collections through the client, against a real server."""

from collections.abc import Iterator
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import Client, Item, Query

from tests.client.pictures import BROKEN, expected_embedding, file_bytes, of_class
from tests.servers import ServerProcess


@pytest.fixture
def collection(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of the default model with a red, a green and a blue image."""
    name = request.node.name[:100].replace("[", "-").replace("]", "")
    client.create_collection(name)
    items = [Item(label, image=of_class(i), attributes={"n": i}) for i, label in enumerate("rgb")]
    assert [result.error for result in client.upsert(name, items)] == [None] * 3
    yield name
    client.drop_collection(name)


def test_a_collection_takes_its_models_dimension(client: Client, collection: str) -> None:
    found = client.collection(collection)
    assert (found.dimension, found.metric, found.count, found.model) == (24, "cosine", 3, "colors")
    assert found.fingerprint == client.model().fingerprint
    assert found in client.collections()
    with pytest.raises(fovea.AlreadyExists, match=collection):
        client.create_collection(collection)


def test_an_image_among_the_callers_own_vectors_fails_alone(client: Client) -> None:
    client.create_collection("own", dimension=3)
    items = [
        Item("a", vector=[1.0, 0.0, 0.0]),
        Item("b", vector=[1.0, 0.0]),
        Item("c", image=of_class(0)),
        Item("d", vector=[0.0, 1.0, 0.0]),
    ]
    words = "collection own takes its callers' own vectors only, of dimension 3, not images"
    try:
        for results in (client.upsert("own", items), list(client.upsert_stream("own", items))):
            assert [result.error is None for result in results] == [True, False, False, True]
            assert isinstance(results[2].error, fovea.FailedPrecondition)
            assert results[2].error.message.startswith(words)
        assert client.count("own") == 2
        with pytest.raises(fovea.FailedPrecondition, match=words):
            client.search("own", image=of_class(0))
    finally:
        client.drop_collection("own")


def test_search_by_image_vector_and_id_agree(client: Client, collection: str) -> None:
    by_image = client.search(collection, image=of_class(1, 210), top_k=2)
    by_vector = client.search(collection, vector=expected_embedding(of_class(1, 210)), top_k=2)
    by_embedding = client.search(collection, vector=client.embed(of_class(1, 210)), top_k=2)
    assert by_image[0].id == "g"
    assert len(by_image) == 2
    assert by_image[0].attributes == {"n": 1}
    assert by_image[0].score > by_image[1].score
    for other in (by_vector, by_embedding):
        assert [neighbor.id for neighbor in other] == [neighbor.id for neighbor in by_image]
        assert other[0].score == pytest.approx(by_image[0].score, abs=1e-5)
    by_id = client.search(collection, id="g")
    assert {neighbor.id for neighbor in by_id} == {"r", "b"}
    with pytest.raises(fovea.NotFound, match="missing"):
        client.search(collection, id="missing")


def test_a_batch_for_many_neighbours_is_split_below_the_servers_limit(
    client: Client, collection: str
) -> None:
    found = client.search_batch(collection, [Query(id="r")] * 25, top_k=1000)  # 25,000 of 10,000
    assert len(found) == 25
    assert all(isinstance(each, list) for each in found), found[0]


def test_a_collection_that_exists_may_be_asked_for_again(client: Client, collection: str) -> None:
    with pytest.raises(fovea.AlreadyExists):
        client.create_collection(collection)
    again = client.create_collection(collection, exist_ok=True)
    assert again == client.collection(collection)
    assert again.count > 0


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"dimension": 3}, "has dimension 2, not 3"),
        ({"dimension": 2, "fingerprint": "other"}, "has fingerprint mine, not other"),
        ({"metric": "cosine"}, "has metric l2, not cosine"),
        ({"storage": "float32"}, "has storage float16, not float32"),
        ({"model": "colors"}, r"has model none that the server has loaded \(fingerprint mine\), not colors"),
        ({"attributes": {"year": "string"}}, "'year' as int, not as string"),
        ({"attributes": {"month": "int"}}, "'month' as nothing, not as int"),
    ],
)
async def test_a_collection_that_exists_must_be_as_stated(
    client: Client, server: ServerProcess, stated: dict[str, Any], words: str
) -> None:
    made = client.create_collection(
        "stated",
        metric="l2",
        dimension=2,
        fingerprint="mine",
        storage="float16",
        attributes={"year": "int", "label": "string"},
    )
    try:
        with pytest.raises(fovea.FailedPrecondition, match=f"'stated' .*{words}"):
            client.create_collection("stated", exist_ok=True, **stated)
        async with fovea.AsyncClient(server.address) as aio:
            with pytest.raises(fovea.FailedPrecondition, match=f"'stated' .*{words}"):
                await aio.create_collection("stated", exist_ok=True, **stated)
            assert await aio.create_collection("stated", attributes={"year": "int"}, exist_ok=True) == made
        assert client.create_collection("stated", metric="l2", dimension=2, exist_ok=True) == made
    finally:
        client.drop_collection("stated")


def test_a_collection_of_a_model_must_be_of_the_model_stated(client: Client, collection: str) -> None:
    assert client.create_collection(collection, model="colors", exist_ok=True).model == "colors"
    with pytest.raises(fovea.FailedPrecondition, match="has model colors, not broken"):
        client.create_collection(collection, model="broken", exist_ok=True)


@pytest.mark.parametrize(
    "image",
    [BROKEN, b"", b"a text", file_bytes(of_class(0), "JPEG")[:-300]],
    ids=["broken", "empty", "text", "cut"],
)
async def test_a_picture_that_cannot_be_used_is_told_as_such(
    client: Client, server: ServerProcess, collection: str, image: bytes
) -> None:
    bad = Item("bad", image=image)
    with pytest.raises(fovea.InvalidImage):
        client.search(collection, image=image)
    (result,) = client.upsert(collection, [bad])
    assert isinstance(result.error, fovea.InvalidImage)
    (streamed,) = client.upsert_stream(collection, [bad])
    assert isinstance(streamed.error, fovea.InvalidImage)
    async with fovea.AsyncClient(server.address) as aio:
        with pytest.raises(fovea.InvalidImage):
            await aio.search(collection, image=image)
        (result,) = await aio.upsert(collection, [bad])
        assert isinstance(result.error, fovea.InvalidImage)
        assert [type(each.error) async for each in aio.upsert_stream(collection, [bad])] == [
            fovea.InvalidImage
        ]


def test_what_is_wrong_with_an_item_but_its_picture_is_not_the_pictures(client: Client) -> None:
    client.create_collection("typed", attributes={"year": "int"})
    image = of_class(0)
    items = [
        Item("", image=image),
        Item("typed", image=image, attributes={"year": "2024"}),
        Item("nan", image=image, attributes={"free": float("nan")}),
        Item("large", image=image, attributes={"free": "x" * 2**17}),
        Item("vector", vector=[float("nan")] * client.collection("typed").dimension),
        Item("good", image=image),
    ]
    try:
        errors = [result.error for result in client.upsert("typed", items)]
        with pytest.raises(fovea.InvalidArgument) as refused:
            client.search("typed", image=image, min_score=float("nan"))
    finally:
        client.drop_collection("typed")
    assert [type(error) for error in errors] == [fovea.InvalidArgument] * 5 + [type(None)], errors
    assert type(refused.value) is fovea.InvalidArgument


def test_search_batch_fails_query_by_query(client: Client, collection: str) -> None:
    queries = [Query(image=of_class(2)), Query(image=BROKEN), Query(id="missing"), Query(id="r")]
    first, second, third, fourth = client.search_batch(collection, queries, top_k=1)
    assert isinstance(first, list)
    assert first[0].id == "b"
    assert isinstance(second, fovea.InvalidImage)
    assert isinstance(third, fovea.NotFound)
    assert isinstance(fourth, list)
    with pytest.raises(ValueError, match="exactly one"):
        client.search(collection)
    with pytest.raises(ValueError, match="exactly one"):
        client.search(collection, id="r", image=of_class(0))


def test_upsert_fails_item_by_item_and_splits(client: Client, collection: str) -> None:
    items = [Item(f"{i:03d}", image=of_class(i)) for i in range(70)]
    items[40] = Item("bad", image=BROKEN)
    items[41] = Item("gone", image="no/such/file.png")
    results = client.upsert(collection, items)
    assert [result.id for result in results] == [item.id for item in items]
    assert {result.id for result in results if result.error is not None} == {"bad", "gone"}
    assert client.count(collection) == 3 + 68
    with pytest.raises(ValueError, match="either image= or vector="):
        Item("both", image=of_class(0), vector=[1.0])


def test_get_delete_and_count(client: Client, collection: str) -> None:
    there = client.get(collection, ["b", "missing", "r"], include_vectors=True)
    assert [item.id for item in there] == ["b", "r"]
    assert there[0].vector is not None
    np.testing.assert_allclose(there[0].vector, expected_embedding(of_class(2)), rtol=1e-5)
    assert client.get(collection, ["b"])[0].vector is None
    with pytest.raises(TypeError, match="put 'rgb' into a list"):
        client.delete(collection, "rgb")
    assert client.delete(collection, ["r", "missing"]) == 1
    assert client.count(collection) == 2


def test_more_ids_than_a_request_takes(client: Client) -> None:
    client.create_collection("ids", dimension=1)
    try:
        ids = [f"{i}" for i in range(300)]
        assert len(client.upsert("ids", [Item(each, vector=[1.0]) for each in ids])) == 300
        assert [item.id for item in client.get("ids", reversed(ids))] == ids[::-1]
        assert client.delete("ids", ids[10:]) == 290
        assert client.count("ids") == 10
    finally:
        client.drop_collection("ids")


def test_attributes_keep_their_types(client: Client, collection: str) -> None:
    attributes: dict[str, Any] = {"s": "ü", "i": -(2**63), "f": 0.5, "yes": True, "no": False, "zero": 0}
    client.upsert(collection, [Item("a", image=of_class(0), attributes=attributes)])
    stored = client.get(collection, ["a"])[0].attributes
    assert {key: (type(value), value) for key, value in stored.items()} == {
        key: (type(value), value) for key, value in attributes.items()
    }
    client.upsert(collection, [Item("a", image=of_class(0), attributes={"n": np.int64(3)})])  # type: ignore[dict-item] # NumPy's scalars are taken too
    assert client.get(collection, ["a"])[0].attributes == {"n": 3}
    with pytest.raises(ValueError, match="'big' is 9223372036854775808; expected an integer of 64 bits"):
        client.upsert(collection, [Item("a", image=of_class(0), attributes={"big": 2**63})])
    with pytest.raises(TypeError, match="'l' is a list; expected str, int, float or bool"):
        client.upsert(collection, [Item("a", image=of_class(0), attributes={"l": [1]})])  # type: ignore[dict-item] # the mistake that is tested


def test_the_callers_own_vectors(client: Client) -> None:
    made = client.create_collection("own", metric="l2", dimension=2, fingerprint="mine")
    try:
        assert (made.dimension, made.metric, made.fingerprint) == (2, "l2", "mine")
        items = [Item("near", vector=[0.0, 1.0]), Item("far", vector=np.array([9.0, 9.0]))]
        client.upsert("own", items, fingerprint="mine")
        found = client.search("own", vector=[0.0, 0.0], top_k=2)
        assert [(each.id, round(each.score, 3)) for each in found] == [("near", -1.0), ("far", -12.728)]
        kept = client.search("own", vector=[0.0, 0.0], min_score=-2.0)
        assert [each.id for each in kept] == ["near"]
        with pytest.raises(fovea.FailedPrecondition, match="mine"):
            client.search("own", vector=[0.0, 0.0], fingerprint="other")
        with pytest.raises(ValueError, match=r"of shape \[1, 2\]; expected numbers of shape \[dimension\]"):
            client.search("own", vector=[[0.0, 0.0]])
    finally:
        client.drop_collection("own")
    with pytest.raises(fovea.NotFound):
        client.collection("own")


def test_embeddings_bring_their_fingerprint(client: Client, collection: str) -> None:
    other = fovea.Embedding(expected_embedding(of_class(0)), "other:fp32", "other", "1")
    with pytest.raises(fovea.FailedPrecondition):
        client.upsert(collection, [Item("x", vector=other)])
    with pytest.raises(ValueError, match="different models"):
        client.upsert(collection, [Item("x", vector=other), Item("y", vector=client.embed(of_class(0)))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "hamming"}, "metric is 'hamming'; expected one of cosine, inner_product, l2"),
        ({"model": "colors", "dimension": 3}, "either model= .* or dimension="),
        ({"fingerprint": "f"}, "fingerprint= needs dimension="),
        ({"dimension": 0}, "dimension is 0"),
    ],
)
def test_wrong_collections_are_refused(client: Client, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.create_collection("never", **options)
