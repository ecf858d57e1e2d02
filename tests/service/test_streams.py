"""Streams that nobody reads from, or that only wait: what they keep from others, and what they hold."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc, image_pb2, status_pb2
from PIL import Image

from service.config import Config
from service.errors import ModelNotFound
from service.interceptors import Call, current_call
from service.pipeline import Pipeline
from service.servicers.streams import OrderedStream
from tests.client.waiting import until
from tests.packages import LABELS, SIZE, write_colors
from tests.servers import ServerProcess

TIMEOUT_S = 30.0
Stub = classification_pb2_grpc.ClassificationServiceStub
PIXELS = image_pb2.Image(raw=image_pb2.RawImage(data=bytes(SIZE * SIZE * 3), height=SIZE, width=SIZE))
DEPTH = 'fovea_queue_depth{model="colors"}'
ANSWERED = 'fovea_images_total{code="OK",model="colors"}'


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """So little room that one stream's window is all that streams may take."""
    folder = tmp_path_factory.mktemp("streams")
    write_colors(folder / "models")
    options = (
        "--queue-capacity", "32", "--max-images-per-request", "16", "--stream-window-images", "32",
        "--max-batch-size", "4", "--default-timeout-ms", "5000",
    )  # fmt: skip
    with ServerProcess(folder / "models", folder / "index", *options) as process:
        yield process


def message(number: int, *, timeout_ms: int = 0) -> pb.ClassifyStreamRequest:
    images = pb.ClassifyRequest(images=[PIXELS] * 8, include_logits=True, top_k=len(LABELS))
    return pb.ClassifyStreamRequest(id=number, request=images, timeout_ms=timeout_ms)


def until_steady(read: Callable[[], float]) -> None:
    """Until what grows has stopped."""
    seen = [-1.0, -2.0]

    def steady() -> bool:
        seen.append(read())
        time.sleep(0.2)
        return seen[-3] == seen[-2] == seen[-1] > 0

    until(steady)


def test_a_caller_who_does_not_read_keeps_nobody_out(small_server: ServerProcess) -> None:
    leave = threading.Event()

    def messages() -> Iterator[pb.ClassifyStreamRequest]:
        for number in range(1_000_000):
            if leave.is_set():
                return
            yield message(number, timeout_ms=600_000)

    with (
        grpc.insecure_channel(small_server.address, [("grpc.http2.bdp_probe", 0)]) as stalled,
        grpc.insecure_channel(small_server.address) as channel,
    ):
        call = Stub(stalled).ClassifyStream(messages())
        assert next(call).id == 0
        until_steady(lambda: small_server.metrics()[ANSWERED])
        # What waits to be read has been answered: its places are others'.
        until(lambda: small_server.metrics()[DEPTH] == 0)
        replies = list(Stub(channel).ClassifyStream(map(message, range(20)), timeout=TIMEOUT_S))
        assert [reply.WhichOneof("outcome") for reply in replies] == ["response"] * 20
        unary = Stub(channel).Classify(message(0).request, timeout=TIMEOUT_S)
        assert len(unary.results) == 8
        # And it is all there for the caller who reads at last.
        leave.set()
        rest = list(call)
        assert [reply.id for reply in rest] == list(range(1, len(rest) + 1))
        assert {reply.WhichOneof("outcome") for reply in rest} == {"response"}
    assert small_server.metrics()[DEPTH] == 0


def behind_a_slow_one(combine: bool) -> Iterator[pb.ClassifyStreamRequest]:
    """A picture that takes long to decode, then messages that fail as soon as they are read."""
    file = io.BytesIO()
    Image.effect_noise((4000, 4000), 50).convert("RGB").save(file, "JPEG")
    slow = pb.ClassifyRequest(images=[image_pb2.Image(encoded=file.getvalue())])
    yield pb.ClassifyStreamRequest(request=slow, timeout_ms=20_000, combine_replies=combine)
    for number in range(1, 6):
        unknown = pb.ClassifyRequest(images=[PIXELS], model="nobody's")
        yield pb.ClassifyStreamRequest(id=number, request=unknown, combine_replies=combine)


@pytest.mark.parametrize("combine", [True, False])
def test_answers_that_are_ready_come_together_where_the_caller_says_so(
    small_server: ServerProcess, combine: bool
) -> None:
    with grpc.insecure_channel(small_server.address) as channel:
        replies = list(Stub(channel).ClassifyStream(behind_a_slow_one(combine), timeout=TIMEOUT_S))
    answers = [answer for reply in replies for answer in (reply, *reply.following)]
    assert [answer.id for answer in answers] == list(range(6))
    assert [answer.WhichOneof("outcome") for answer in answers] == ["response"] + ["error"] * 5
    assert [len(reply.following) for reply in replies] == ([5] if combine else [0] * 6)


class ScriptedContext:
    """Gives messages as fast as they are read, then the end; keeps what is written."""

    def __init__(self, messages: list[pb.ClassifyStreamRequest]) -> None:
        self._messages = iter(messages)
        self.written: list[pb.ClassifyStreamResponse] = []

    async def read(self) -> Any:
        return next(self._messages, grpc.aio.EOF)

    async def write(self, reply: pb.ClassifyStreamResponse) -> None:
        self.written.append(reply)


async def test_answers_that_come_together_have_a_mebibyte_at_most() -> None:
    def understand(request: pb.ClassifyStreamRequest) -> Any:
        raise ModelNotFound("no such model")

    def fail(number: int, why: status_pb2.Status) -> pb.ClassifyStreamResponse:
        why.message = "x" * 300_000
        return pb.ClassifyStreamResponse(id=number, error=why)

    current_call.set(Call("/fovea.v1.ClassificationService/ClassifyStream", "a-request"))
    messages = [pb.ClassifyStreamRequest(id=number, combine_replies=True) for number in range(10)]
    messages[5].combine_replies = False
    context = ScriptedContext(messages)
    # No message gets as far as the pipeline.
    stream = OrderedStream(cast("Pipeline", None), understand, fail, Config(), asyncio.Event())
    await stream.run(cast("Any", context))
    together = [[reply.id, *(answer.id for answer in reply.following)] for reply in context.written]
    assert together == [[0, 1, 2], [3, 4], [5], [6, 7, 8], [9]]


def resident_bytes(server: ServerProcess) -> float:
    return server.metrics()["process_resident_memory_bytes"]


def test_streams_that_wait_keep_no_message(small_server: ServerProcess) -> None:
    large = pb.ClassifyStreamRequest(
        request=pb.ClassifyRequest(images=[image_pb2.Image(encoded=bytes(8_000_000))])
    )
    go_on = threading.Event()

    def messages() -> Iterator[pb.ClassifyStreamRequest]:
        yield large
        go_on.wait(TIMEOUT_S)

    with grpc.insecure_channel(small_server.address) as channel:
        before = resident_bytes(small_server)
        calls = [Stub(channel).ClassifyStream(messages()) for _ in range(24)]
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda call: next(call).response.results[0].error.code, calls))
        assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}
        held = resident_bytes(small_server) - before
        go_on.set()
        for call in calls:
            assert list(call) == []
    assert held < 24 * 8_000_000 / 2  # some are gRPC's buffers, in use again


def test_a_stream_that_is_cancelled_in_every_state_leaves_no_place_taken(
    small_server: ServerProcess,
) -> None:
    def messages() -> Iterator[pb.ClassifyStreamRequest]:
        for number in range(200):
            yield message(number)

    with grpc.insecure_channel(small_server.address) as channel:
        for read in (0, 1, 2, 7, 30):
            calls = [Stub(channel).ClassifyStream(messages()) for _ in range(4)]
            for call in calls:
                for _ in range(read):
                    next(call)
                call.cancel()
        until(lambda: small_server.metrics()[DEPTH] == 0)
        replies = list(Stub(channel).ClassifyStream(map(message, range(20)), timeout=TIMEOUT_S))
        assert [reply.WhichOneof("outcome") for reply in replies] == ["response"] * 20


def test_a_malformed_message_ends_the_stream_after_the_answers_before_it(
    small_server: ServerProcess,
) -> None:
    with grpc.insecure_channel(small_server.address) as channel:
        call = channel.stream_stream(
            "/fovea.v1.ClassificationService/ClassifyStream",
            response_deserializer=pb.ClassifyStreamResponse.FromString,
        )(iter([message(1).SerializeToString(), message(2).SerializeToString(), b"\xff\xff\xff"]))  # type: ignore[arg-type] # bytes as they are
        assert [next(call).id, next(call).id] == [1, 2]
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    until(lambda: small_server.metrics()[DEPTH] == 0)
