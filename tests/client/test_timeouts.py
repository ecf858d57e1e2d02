# ruff: noqa: ASYNC109 - the parameter is the value under test
"""Timeouts at the ends of their range."""

import math

import fovea
import pytest
from fovea import AsyncClient, Client

from tests.client.faulty_proxy import faulty
from tests.client.pictures import of_class
from tests.servers import ServerProcess

LONG = (math.inf, 1e12, 1e300)


@pytest.mark.parametrize("timeout", LONG)
def test_long_timeouts_are_no_trouble(server: ServerProcess, timeout: float) -> None:
    with Client(server.address, timeout=timeout) as client:
        assert client.classify(of_class(1)).label == "green"
    with Client(server.address) as client:
        assert client.models(timeout=timeout)
        assert client.ready(timeout=timeout)
        client.wait_until_ready(timeout=timeout)
        (result,) = client.embed_stream([of_class(0)], timeout=timeout)
        assert isinstance(result, fovea.Embedding)


@pytest.mark.parametrize("timeout", LONG)
async def test_nor_with_asyncio(server: ServerProcess, timeout: float) -> None:
    async with AsyncClient(server.address, timeout=timeout) as client:
        assert (await client.classify(of_class(1))).label == "green"
        assert await client.models(timeout=timeout)
        await client.wait_until_ready(timeout=timeout)
        results = [each async for each in client.classify_stream([of_class(0)], timeout=timeout)]
        assert isinstance(results[0], fovea.Classification)


def test_infinity_is_no_deadline_also_against_the_clients_own(server: ServerProcess) -> None:
    with faulty(server) as proxy, Client(proxy.address, timeout=60) as client:
        for timeout in (None, math.inf, 1e12):
            client.models(timeout=timeout)
    own, none, long = (math.inf if left is None else left for left in proxy.left_s)
    assert own < 90  # a minute, and what the clocks are apart
    # gRPC's own word for no deadline is one that is centuries away.
    assert none > 100 * 365 * 86_400
    assert 365 * 86_400 < long < none


@pytest.mark.parametrize("timeout", [math.nan, 0, -1.0, -math.inf])
async def test_what_is_no_time_is_refused(timeout: float) -> None:
    message = f"timeout is {timeout}; expected seconds above 0"
    with pytest.raises(ValueError, match=message):
        Client(timeout=timeout)
    with pytest.raises(ValueError, match=message):
        AsyncClient(timeout=timeout)
    with Client("127.0.0.1:1") as client:
        for call in (client.models, client.wait_until_ready, client.ready):
            with pytest.raises(ValueError, match=message):
                call(timeout=timeout)
        with pytest.raises(ValueError, match=message):
            client.classify_stream([], timeout=timeout)
    async with AsyncClient("127.0.0.1:1") as other:
        with pytest.raises(ValueError, match=message):
            await other.models(timeout=timeout)


def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match=r"timeout is '0\.25'; expected a number of seconds"):
        Client(timeout="0.25")  # type: ignore[arg-type] # as a setting that nobody converted
