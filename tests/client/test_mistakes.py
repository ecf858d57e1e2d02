"""What a caller's slip is answered with: wrong types, wrong addresses, nobody there, a closed client."""

from collections.abc import AsyncIterator
from typing import Any

import fovea
import numpy as np
import pytest
from fovea import AsyncClient, Client, GroupBy, Item, Query, QueryExpansion

from tests.client.pictures import of_class
from tests.servers import ServerProcess

NOBODY = "127.0.0.1:1"
ITEM = Item("a", image=of_class(0))


@pytest.fixture
async def aio(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    """The client for asyncio."""
    async with AsyncClient(server.address) as connected:
        yield connected


@pytest.mark.parametrize(
    ("queries", "words"),
    [
        (["photo.jpg"], r"a query is 'photo.jpg' \(str\); expected a fovea.Query, as fovea.Query\(image="),
        ([Query(id="a"), {"id": "a"}], r"a query is \{'id': 'a'\} \(dict\); expected a fovea.Query"),
        ("photo.jpg", r"expected several queries, for instance a list; got 'photo.jpg' \(str\)"),
        (Query(id="a"), r"expected several queries, .* \(Query\)"),
    ],
)
async def test_what_is_no_query(client: Client, aio: AsyncClient, queries: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        client.search_batch("default", queries)
    with pytest.raises(TypeError, match=words):
        await aio.search_batch("default", queries)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"top_k": "3"}, TypeError, r"top_k is '3' \(str\); expected a whole number, at least 1"),
        ({"top_k": 3.0}, TypeError, r"top_k is 3.0 \(float\); expected a whole number, at least 1"),
        ({"top_k": None}, TypeError, r"top_k is None \(NoneType\); expected a whole number"),
        ({"offset": "3"}, TypeError, r"offset is '3' \(str\); expected a whole number, 0 or more"),
        ({"recall": "1"}, TypeError, r"recall is '1' \(str\); expected a number"),
        ({"min_score": "0.5"}, TypeError, r"min_score is '0.5' \(str\); expected a number"),
        (
            {"group_by": GroupBy("year", "2")},  # type: ignore[arg-type] # wrong on purpose
            TypeError,
            r"max_per_group is '2' \(str\); expected a whole",
        ),
        (
            {"expansion": QueryExpansion(1, "3")},  # type: ignore[arg-type] # wrong on purpose
            TypeError,
            r"alpha is '3' \(str\); expected a number",
        ),
        (
            {"vector": "abc"},
            TypeError,
            r"^vector is 'abc' \(str\); expected numbers of shape \[dimension\], or a fovea.Embedding$",
        ),
        ({"vector": [[1], [1, 2]]}, TypeError, r"vector is \[\[1\], \[1, 2\]\] \(list\); expected numbers"),
        ({"vector": [[1, 2]]}, ValueError, r"vector is .* \(list\), of shape \[1, 2\]; expected numbers of"),
    ],
)
async def test_what_a_search_cannot_take(
    client: Client, aio: AsyncClient, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    arguments = {"vector": [1.0, 2.0]} | options
    with pytest.raises(error, match=words):
        client.search("default", **arguments)
    with pytest.raises(error, match=words):
        await aio.search("default", **arguments)


async def test_what_is_no_vector_of_an_item(client: Client) -> None:
    words = r"^the vector of item 'a' is 'abc' \(str\); expected numbers of shape \[dimension\]"
    with pytest.raises(TypeError, match=words):
        client.upsert("default", [Item("a", vector="abc")])


def test_numpys_numbers_are_numbers(client: Client) -> None:
    options: Any = {
        "top_k": np.int64(3),
        "offset": np.int32(0),
        "recall": np.float32(1),
        "min_score": np.float64(0),
    }
    with pytest.raises(fovea.NotFound):  # all of them were taken
        client.search("not-there", vector=np.ones(2), **options)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (
            [{"id": "a"}],
            r"an item is \{'id': 'a'\} \(dict\); expected a fovea.Item, as fovea.Item\('a', image=",
        ),
        (ITEM, r"expected several items, for instance a list; got .* \(Item\)"),
        ({"id": "a"}, r"expected several items, for instance a list; got \{'id': 'a'\} \(dict\)"),
    ],
)
async def test_what_is_no_item(client: Client, aio: AsyncClient, items: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        client.upsert("default", items)
    with pytest.raises(TypeError, match=words):
        list(client.upsert_stream("default", items))
    with pytest.raises(TypeError, match=words):
        await aio.upsert("default", items)
    with pytest.raises(TypeError, match=words):
        async for _ in aio.upsert_stream("default", items):
            pass


@pytest.mark.parametrize(
    ("target", "reason"),
    [(NOBODY, "refused"), ("unix:/no/such.sock", "No such file")],
)
async def test_where_no_server_answers_the_error_names_the_address(target: str, reason: str) -> None:
    words = rf"no server answers at {target} \(.*{reason}.*\)$"
    with Client(target, retries=0) as client:
        with pytest.raises(fovea.Unavailable, match=words) as caught:
            client.models()
        assert caught.value.code == "UNAVAILABLE"
        with pytest.raises(fovea.Unavailable, match=words):
            list(client.embed_stream([of_class(0)]))
        with pytest.raises(fovea.Unavailable, match=words):
            list(client.reembed("default"))
    async with AsyncClient(target, retries=0) as aio:
        with pytest.raises(fovea.Unavailable, match=words):
            await aio.models()
        with pytest.raises(fovea.Unavailable, match=words):
            _ = [each async for each in aio.embed_stream([of_class(0)])]
        with pytest.raises(fovea.Unavailable, match=words):
            _ = [each async for each in aio.reembed("default")]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:50051",
        "localhost",
        "localhost:",
        ":50051",
        "localhost:0",
        "localhost:65536",
        "localhost:50051/",
        "::1",
        "my host:50051",
    ],
)
async def test_an_address_is_host_and_port(target: str) -> None:
    with pytest.raises(ValueError, match=rf"address is '{target}'; expected host:port, for instance 127"):
        Client(target)
    with pytest.raises(ValueError, match="expected host:port"):
        AsyncClient(target)


@pytest.mark.parametrize(
    "target",
    ["localhost:1", "[::1]:1", "dns:///fovea:50051", "dns:fovea", "unix:/a.sock", "ipv4:127.0.0.1:1"],
)
def test_grpcs_own_names_are_addresses_too(target: str) -> None:
    with Client(target) as client:
        assert client.target == target


async def test_a_closed_client_says_so(server: ServerProcess) -> None:
    words = f"the client of {server.address} is closed"
    with Client(server.address) as client:
        begun_too_late = client.embed_stream([of_class(0)])
    with pytest.raises(ValueError, match=words):
        client.models()
    with pytest.raises(ValueError, match=words):
        list(begun_too_late)
    with pytest.raises(ValueError, match=words):
        list(client.reembed("default"))
    async with AsyncClient(server.address) as aio:
        too_late = aio.embed_stream([of_class(0)])
    with pytest.raises(ValueError, match=words):
        await aio.models()
    with pytest.raises(ValueError, match=words):
        _ = [each async for each in too_late]
    with pytest.raises(ValueError, match=words):
        _ = [each async for each in aio.reembed("default")]
