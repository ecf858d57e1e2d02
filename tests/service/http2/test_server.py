"""The server as gRPC's own clients see it."""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from service.http2.server import Http2Server
from tests.service.http2.peer import LIMITS, MIB, PATIENCE_S, Running, connected, running, until

LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def channel(served: Running, *options: tuple[str, Any], **more: Any) -> Any:
    """A client of its own connection; the stubs can't type calls without serializers."""
    own = [*LARGE, ("grpc.use_local_subchannel_pool", 1), *options]
    return grpc.aio.insecure_channel(served.address, options=own, **more)


def unary(client: Any, name: str) -> Any:
    return client.unary_unary(f"/test.Test/{name}")


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_unary_calls_and_their_metadata() -> None:
    async with running() as served, channel(served) as client:
        sent = (("x-a", "b"), ("x-a", "c"), ("x-raw-bin", b"\x00\xff"))
        call = unary(client, "Echo")(b"abc", metadata=sent, timeout=PATIENCE_S)
        assert await call == b"abc"
        assert await call.code() == grpc.StatusCode.OK
        assert tuple(await call.trailing_metadata()) == (("x-size", "3"), ("x-raw-bin", b"\x00\xff"))
        assert [pair for pair in served.handlers.metadata if pair[0].startswith("x-")] == list(sent)
        assert await unary(client, "Echo")(b"", timeout=PATIENCE_S) == b""


async def test_streams() -> None:
    async def requests() -> AsyncIterator[bytes]:
        for size in (0, 1, 70_000, 3):
            yield bytes(size)

    async with running() as served, channel(served) as client:
        echoes = client.stream_stream("/test.Test/Echoes")(requests(), timeout=PATIENCE_S)
        assert [len(answer) async for answer in echoes] == [0, 1, 70_000, 3]
        assert await client.stream_unary("/test.Test/Total")(requests(), timeout=PATIENCE_S) == b"70004"
        count = client.unary_stream("/test.Test/Count")(b"1000", timeout=PATIENCE_S)
        assert [int(answer) async for answer in count] == list(range(1000))
        assert [answer async for answer in client.unary_stream("/test.Test/Count")(b"0")] == []
        assert not served.handlers.open


async def test_turn_by_turn() -> None:
    async with running() as served, channel(served) as client:
        call = client.stream_stream("/test.Test/Echoes")(timeout=PATIENCE_S)
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_the_client_of_threads() -> None:
    def calls(address: str) -> None:
        client: Any
        with grpc.insecure_channel(address) as client:
            assert unary(client, "Echo")(b"abc", timeout=PATIENCE_S) == b"abc"
            echoes = client.stream_stream("/test.Test/Echoes")(iter([b"a", b"b"]), timeout=PATIENCE_S)
            assert list(echoes) == [b"a", b"b"]
            with pytest.raises(grpc.RpcError) as caught:
                unary(client, "Abort")(b"", timeout=PATIENCE_S)
            assert caught.value.details() == "à bientôt, 100 % ✓"

    async with running() as served:
        await asyncio.to_thread(calls, served.address)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests(compression: grpc.Compression) -> None:
    async with running() as served, channel(served, compression=compression) as client:
        content = b"abc" * 10_000
        assert await unary(client, "Echo")(content, timeout=PATIENCE_S) == content
        too_large = unary(client, "Echo")(bytes(5 * MIB), timeout=PATIENCE_S)
        code, details = await code_of(too_large)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details.startswith("Received message larger than max")


async def test_a_message_that_is_too_large() -> None:
    async with running() as served, channel(served) as client:
        assert await unary(client, "Echo")(bytes(4 * MIB), timeout=PATIENCE_S) == bytes(4 * MIB)
        code, details = await code_of(unary(client, "Echo")(bytes(4 * MIB + 1), timeout=PATIENCE_S))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details == f"Received message larger than max ({4 * MIB + 1} vs. {4 * MIB})"
        assert await unary(client, "Echo")(b"a", timeout=PATIENCE_S) == b"a"


async def test_messages_of_30_mib_both_ways() -> None:
    limits = replace(LIMITS, message_bytes=31 * MIB)
    async with running(limits) as served, channel(served) as client:
        content = bytes(range(256)) * (30 * MIB // 256)
        both = [unary(client, "Echo")(content, timeout=PATIENCE_S) for _ in range(2)]
        assert all([await call == content for call in both])


async def test_a_deadline_cancels_the_handler() -> None:
    async with running() as served, channel(served) as client:
        code, _ = await code_of(unary(client, "Sleep")(b"", timeout=0.1))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: served.handlers.cancelled)


@pytest.mark.parametrize("method", ["Sleep", "Stubborn"])
async def test_the_server_keeps_the_deadline_itself(method: str) -> None:
    async with running() as served, connected(served.port) as peer:
        peer.call(1, method, grpc_timeout="20m")
        assert "'grpc-status': '4'" in await peer.status(1)


async def test_a_client_that_cancels_cancels_the_handler() -> None:
    async with running() as served, channel(served) as client:
        call = unary(client, "Sleep")(b"")
        running_call = asyncio.ensure_future(call.code())
        await until(lambda: served.handlers.began)
        call.cancel()
        assert await running_call == grpc.StatusCode.CANCELLED
        await until(lambda: served.handlers.cancelled)


async def test_a_stream_that_is_cancelled_closes_its_generator() -> None:
    async with running() as served, channel(served) as client:
        call = client.unary_stream("/test.Test/Count")(b"10000000", timeout=PATIENCE_S)
        assert await call.read() == b"00000000"
        assert served.handlers.open == 1
        (held,) = served.server._connections
        call.cancel()
        await until(lambda: not held._handlers and not served.handlers.open)
        assert not served.handlers.closed_elsewhere


async def test_ends_that_handlers_choose_or_don_t() -> None:
    async with running() as served, channel(served, ("grpc.enable_retries", 0)) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(client, "Abort")(b"", timeout=PATIENCE_S)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "à bientôt, 100 % ✓"
        trailing = caught.value.trailing_metadata()
        assert trailing is not None
        assert ("x-why", "full") in tuple(trailing)
        assert await code_of(unary(client, "Crash")(b"as planned", timeout=PATIENCE_S)) == (
            grpc.StatusCode.UNKNOWN,
            "Unexpected <class 'ZeroDivisionError'>: as planned",
        )
        # gRPC's clients take 16 KiB of headers.
        code, details = await code_of(unary(client, "Crash")(b"x" * 17_000, timeout=PATIENCE_S))
        assert code == grpc.StatusCode.UNKNOWN
        assert details.endswith("xxx")
        assert await code_of(unary(client, "Nothing")(b"", timeout=PATIENCE_S)) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "Method not found!",
        )
        # Metadata that would break the connection is left out; the answer isn't.
        assert await unary(client, "BadTrailers")(b"", timeout=PATIENCE_S) == b"fine"


async def test_a_push_back_is_followed() -> None:
    # Only an answer of trailers alone is retried.
    config = ("grpc.service_config", json.dumps(RETRIES))
    async with running() as served, channel(served, config) as client:
        code, _ = await code_of(unary(client, "Abort")(b"", timeout=PATIENCE_S))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert served.handlers.began == 4


async def test_a_thousand_calls_over_64_streams() -> None:
    async with running() as served, channel(served) as client:
        echo = unary(client, "Echo")
        answers = await asyncio.gather(*(echo(b"%d" % number, timeout=PATIENCE_S) for number in range(1000)))
        assert answers == [b"%d" % number for number in range(1000)]
        (held,) = served.server._connections
        await until(lambda: held.idle)


async def test_a_connection_s_age_breaks_no_call() -> None:
    limits = replace(LIMITS, age_s=0.1, grace_s=PATIENCE_S)
    async with running(limits) as served, channel(served) as client:
        seen = set()
        for _ in range(100):
            assert await unary(client, "Echo")(b"a", timeout=PATIENCE_S) == b"a"
            seen |= {id(each) for each in served.server._connections}
            await asyncio.sleep(0.005)
        assert len(seen) > 1


async def test_a_client_that_keeps_its_connection_alive() -> None:
    options = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    limits = replace(LIMITS, ping_interval_s=0.0)
    async with running(limits) as served, channel(served, *options) as client:
        assert await unary(client, "Echo")(b"a", timeout=PATIENCE_S) == b"a"
        (held,) = served.server._connections
        held._last_ping_s = 0
        await until(lambda: held._last_ping_s > 0)
        assert held in served.server._connections


async def test_a_stop_lets_calls_finish_and_refuses_others() -> None:
    async with running() as served, channel(served) as client:
        waits = unary(client, "Wait")(b"", timeout=PATIENCE_S)
        await until(lambda: served.handlers.began)
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE_S))
        (held,) = served.server._connections
        await until(lambda: held._going and not held._timers.keys() & {"goodbye"})
        code, _ = await code_of(unary(client, "Echo")(b"a", timeout=PATIENCE_S))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        served.handlers.release.set()
        assert await waits == b"waited"
        await stopping
        assert not served.server._connections


async def test_no_call_is_lost_while_one_server_follows_another() -> None:
    async with running() as first, channel(first) as client:
        echo = unary(client, "Echo")
        under_way = [echo(b"a", timeout=PATIENCE_S, wait_for_ready=True) for _ in range(200)]
        await under_way[0]
        stopping = asyncio.ensure_future(first.server.stop(PATIENCE_S))
        await asyncio.sleep(0)
        later = [echo(b"b", timeout=PATIENCE_S, wait_for_ready=True) for _ in range(200)]
        async with running(port=first.port):
            assert [await call for call in under_way] == [b"a"] * 200
            assert [await call for call in later] == [b"b"] * 200
            await stopping


async def test_a_stop_at_once() -> None:
    async with running() as served, channel(served, ("grpc.enable_retries", 0)) as client:
        sleeps = unary(client, "Sleep")(b"", timeout=PATIENCE_S)
        await until(lambda: served.handlers.began)
        await served.server.stop(None)
        assert not served.server._connections
        assert served.handlers.cancelled
        assert await code_of(sleeps) == (grpc.StatusCode.UNAVAILABLE, "the server stops")


async def test_a_stop_waits_for_a_handler_whose_connection_was_lost() -> None:
    async with running() as served:
        async with connected(served.port) as peer:
            peer.call(1, "Cleanup")
            await until(lambda: served.handlers.began)
            (held,) = served.server._connections
            peer.writer.transport.abort()
            await until(lambda: held._lost)
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE_S))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        served.handlers.release.set()
        await stopping
        assert served.handlers.cleaned
        assert not served.server._connections


async def test_a_second_stop_ends_the_first() -> None:
    async with running() as served, channel(served) as client:
        sleeps = unary(client, "Sleep")(b"", timeout=PATIENCE_S)
        await until(lambda: served.handlers.began)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(served.server.stop(20 * PATIENCE_S), served.server.stop(None))
        assert (await code_of(sleeps))[0] == grpc.StatusCode.UNAVAILABLE


async def test_a_stop_with_peers_that_say_nothing_or_never_read() -> None:
    async with running() as served, connected(served.port) as deaf:
        silent = await asyncio.open_connection("127.0.0.1", served.port)
        await until(lambda: len(served.server._connections) == 2)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's stubs give the base class
        deaf.call(1, "Stubborn")
        deaf.begin(3, "Unread")
        await until(lambda: served.handlers.began)
        await asyncio.gather(served.server.stop(0.05), served.server.stop(None))
        await until(lambda: not served.server._connections)
        silent[1].close()


async def test_a_connection_that_waited_to_be_accepted_is_told_to_go() -> None:
    async with running() as served:
        served.server._stopping = True  # as between the stop and the listener's end
        async with connected(served.port) as peer:
            await peer.until(7)
            await peer.closed()


async def test_ports() -> None:
    server, second = Http2Server(LIMITS), Http2Server(LIMITS)
    port = server.add_insecure_port("127.0.0.1:0")
    with pytest.raises(OSError, match=r"."):
        second.add_insecure_port(f"127.0.0.1:{port}")
    assert not second._sockets
    await server.stop(None)  # never started: its socket is closed all the same
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    await second.stop(None)


async def test_an_address_that_the_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    absent = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [absent, here])
    server = Http2Server(LIMITS)
    assert server.add_insecure_port("both:0")
    assert len(server._sockets) == 1
    await server.stop(None)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [absent])
    with pytest.raises(OSError, match=r".") as caught:
        server.add_insecure_port("absent:0")
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_ipv6_and_both() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with running(host="[::]") as served:
        for host in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{host}:{served.port}") as client:
                assert await unary(client, "Echo")(b"a", timeout=PATIENCE_S) == b"a"


async def test_an_answer_above_the_limit_is_refused() -> None:
    async with running() as served, grpc.aio.insecure_channel(served.address) as client:
        code, details = await code_of(unary(client, "Large")(str(4 * MIB + 1).encode(), timeout=PATIENCE_S))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details == f"Sent message larger than max ({4 * MIB + 1} vs. {4 * MIB})"
