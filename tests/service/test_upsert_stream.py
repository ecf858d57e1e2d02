"""Streams of items to write: order, each message's own errors, back-pressure, and the server's end."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fovea.v1 import image_pb2, model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from tests.client.pictures import BROKEN, file_bytes, of_class
from tests.client.waiting import until
from tests.packages import write_colors
from tests.servers import ServerProcess

TIMEOUT_S = 30.0
DEPTH = 'fovea_queue_depth{model="colors"}'
PICTURES = [image_pb2.Image(encoded=file_bytes(of_class(n, 60 + 10 * n))) for n in range(12)]
Stub = retrieval_pb2_grpc.RetrievalServiceStub


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Windows of 16 items."""
    folder = tmp_path_factory.mktemp("upserts")
    write_colors(folder / "models")
    options = (
        "--queue-capacity", "64", "--max-images-per-request", "16", "--stream-window-images", "16",
        "--default-timeout-ms", "20000", "--drain-timeout-s", "3600",
    )  # fmt: skip
    with ServerProcess(folder / "models", folder / "index", *options) as process:
        yield process


@pytest.fixture
def stub(small_server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(small_server.address) as channel:
        yield Stub(channel)


@pytest.fixture
def name(stub: Stub, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of the model."""
    name = request.node.name[:100].replace("[", "-").replace("]", "")
    stub.CreateCollection(pb.CreateCollectionRequest(collection=name), timeout=TIMEOUT_S)
    yield name
    stub.DropCollection(pb.DropCollectionRequest(collection=name), timeout=TIMEOUT_S)


def message(number: int, name: str, *items: pb.UpsertItem, **fields: Any) -> pb.UpsertStreamRequest:
    request = pb.UpsertRequest(collection=name, items=items)
    return pb.UpsertStreamRequest(id=number, request=request, **fields)


def pictures(start: int, count: int) -> list[pb.UpsertItem]:
    return [pb.UpsertItem(id=f"{n:04}", image=PICTURES[n % 12]) for n in range(start, start + count)]


def counted(stub: Stub, name: str) -> int:
    return int(stub.Count(pb.CountRequest(collection=name), timeout=TIMEOUT_S).count)


def test_any_number_of_items_is_written_and_answered_in_order(stub: Stub, name: str) -> None:
    """More images than may be in at a time: messages wait for room, none is refused."""
    messages = (message(n, name, *pictures(8 * n, 8)) for n in range(60))
    replies = list(stub.UpsertStream(messages, timeout=TIMEOUT_S))
    assert [reply.id for reply in replies] == list(range(60))
    results = [result for reply in replies for result in reply.response.results]
    assert [result.id for result in results] == [f"{n:04}" for n in range(480)]
    assert not any(result.HasField("error") for result in results)
    assert {reply.response.model.name for reply in replies} == {"colors"}
    assert counted(stub, name) == 480


def test_the_later_of_two_messages_wins(stub: Stub, name: str) -> None:
    """Pictures take longer than vectors, and are written first all the same."""
    vector = model_pb2.Vector(values=[1.0] * 24)

    def messages() -> Iterator[pb.UpsertStreamRequest]:
        for number in range(40):
            last = {"turn": pb.AttributeValue(int_value=number)}
            item = (
                pb.UpsertItem(id="same", image=PICTURES[number % 12], attributes=last)
                if number % 2 == 0
                else pb.UpsertItem(id="same", vector=vector, attributes=last)
            )
            yield message(number, name, item, *(pictures(0, 6) if number % 2 == 0 else []))

    for reply in stub.UpsertStream(messages(), timeout=TIMEOUT_S):
        assert reply.WhichOneof("outcome") == "response"
    (item,) = stub.Get(pb.GetRequest(collection=name, ids=["same"]), timeout=TIMEOUT_S).items
    assert item.attributes["turn"].int_value == 39


def test_what_fails_is_its_own_answer_and_the_stream_goes_on(stub: Stub, name: str) -> None:
    bad = [
        pb.UpsertItem(id="broken", image=image_pb2.Image(encoded=BROKEN)),
        pb.UpsertItem(id="short", vector=model_pb2.Vector(values=[1.0])),
        pb.UpsertItem(id="good", image=PICTURES[0]),
    ]
    other = message(6, name, *pictures(0, 1))
    other.request.fingerprint = "another model's"
    messages = [
        message(1, name, *bad),
        message(2, "nobody's", *pictures(0, 2)),
        message(3, name),
        message(4, name, *pictures(0, 17)),
        message(5, name, *pictures(0, 1), timeout_ms=1),
        other,
        message(7, name, *pictures(5, 2)),
    ]
    replies = list(stub.UpsertStream(iter(messages), timeout=TIMEOUT_S))
    assert [reply.id for reply in replies] == [1, 2, 3, 4, 5, 6, 7]
    codes = [result.error.code for result in replies[0].response.results]
    status = grpc.StatusCode
    assert codes == [status.INVALID_ARGUMENT.value[0], status.FAILED_PRECONDITION.value[0], 0]
    assert [reply.error.code for reply in replies[1:6] if reply.id != 5] == [
        code.value[0]
        for code in (
            status.NOT_FOUND,
            status.INVALID_ARGUMENT,
            status.INVALID_ARGUMENT,
            status.FAILED_PRECONDITION,
        )
    ]
    assert "no collection" in replies[1].error.message
    assert "the request has 0 items; expected 1 to 16" in replies[2].error.message
    assert "the request has 17 items" in replies[3].error.message
    assert "another model's" in replies[5].error.message
    if replies[4].HasField("error"):  # unless a millisecond was enough
        assert replies[4].error.code == status.DEADLINE_EXCEEDED.value[0]
    assert not any(result.HasField("error") for result in replies[6].response.results)
    there = stub.Get(
        pb.GetRequest(collection=name, ids=["good", "broken", "0005", "0006"]), timeout=TIMEOUT_S
    )
    assert [item.id for item in there.items] == ["good", "0005", "0006"]


def test_a_caller_who_does_not_read_is_held_back(stub: Stub, name: str, small_server: ServerProcess) -> None:
    """The answers that wait count as much as the work: the window's 16 items are all that is written."""
    sent = itertools.count()
    leave = threading.Event()

    def messages() -> Iterator[pb.UpsertStreamRequest]:
        for number in sent:
            if leave.is_set():
                return
            # Long ids, whose answers fill what the network itself takes.
            items = [
                pb.UpsertItem(id=f"{number:06}/{n}".ljust(500, "x"), image=PICTURES[n]) for n in range(8)
            ]
            yield message(number, name, *items)

    with grpc.insecure_channel(small_server.address, [("grpc.http2.bdp_probe", 0)]) as stalled:
        call = Stub(stalled).UpsertStream(messages())
        assert next(call).id == 0
        seen = -1
        while (now := counted(stub, name)) != seen:
            seen = now
            time.sleep(0.5)
        until(lambda: small_server.metrics()[DEPTH] == 0)
        assert stub.Upsert(pb.UpsertRequest(collection=name, items=pictures(0, 4)), timeout=TIMEOUT_S).results
        leave.set()
        rest = list(call)
    assert [reply.id for reply in rest] == list(range(1, len(rest) + 1))
    assert counted(stub, name) == 8 * (len(rest) + 1) + 4


def test_streams_that_are_cancelled_leave_nothing_behind(
    stub: Stub, name: str, small_server: ServerProcess
) -> None:
    for read in (0, 1, 5):
        messages = (message(n, name, *pictures(8 * n, 8)) for n in range(50))
        call = stub.UpsertStream(messages)
        for _ in range(read):
            next(call)
        call.cancel()
    until(lambda: small_server.metrics()[DEPTH] == 0)
    (reply,) = stub.UpsertStream(iter([message(1, name, *pictures(900, 2))]), timeout=TIMEOUT_S)
    assert len(reply.response.results) == 2


def test_a_malformed_message_ends_the_stream_after_the_answers_before_it(
    name: str, small_server: ServerProcess
) -> None:
    sent = [message(1, name, *pictures(0, 2)).SerializeToString(), b"\xff\xff\xff"]
    with grpc.insecure_channel(small_server.address) as channel:
        call = channel.stream_stream(
            "/fovea.v1.RetrievalService/UpsertStream",
            response_deserializer=pb.UpsertStreamResponse.FromString,
        )(iter(sent))  # type: ignore[arg-type] # bytes as they are
        assert next(call).id == 1
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_idle_stream_does_not_hold_up_the_drain(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    release = threading.Event()

    def messages() -> Iterator[pb.UpsertStreamRequest]:
        yield message(1, "c", *pictures(0, 2))
        release.wait(60)

    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", "--drain-timeout-s", "3600") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = Stub(channel)
        stub.CreateCollection(pb.CreateCollectionRequest(collection="c"), timeout=TIMEOUT_S)
        stream = stub.UpsertStream(messages())
        assert next(stream).id == 1
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in (caught.value.details() or "")
        assert server.wait() == 0
        release.set()
