"""What a caller meets over the wire: right answers, each image's own error, refusals, deadlines, streams."""

import asyncio
import io
import random
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from fovea.v1 import classification_pb2 as pb
from fovea.v1 import classification_pb2_grpc, embedding_pb2, embedding_pb2_grpc, image_pb2
from numpy.typing import NDArray
from PIL import Image

from service.image import decode
from service.preprocess import Preprocessing, preprocess
from tests.packages import (
    SIZE,
    colors_embedding,
    colors_logits,
    write_colors,
    write_slow,
)
from tests.servers import ServerProcess, colors_server

SPEC = Preprocessing(SIZE, SIZE, SIZE, "bilinear")
TIMEOUT_S = 30
DECODING = ("threads", "inference")  # which threads do it must make no difference to callers


def random_image(seed: int, height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    # Blocks of one colour each, so that resizing leaves images distinct.
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return coarse.repeat(height // 4, 0).repeat(width // 5, 1)


def raw(pixels: NDArray[np.uint8]) -> image_pb2.Image:
    height, width, _ = pixels.shape
    return image_pb2.Image(raw=image_pb2.RawImage(data=pixels.tobytes(), height=height, width=width))


def encoded(pixels: NDArray[np.uint8], file_format: str = "PNG") -> image_pb2.Image:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return image_pb2.Image(encoded=file.getvalue())


def request(*images: image_pb2.Image, model: str = "", top_k: int = 0) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(images=images, model=model, top_k=top_k, include_logits=True)


def assert_logits(result: pb.ClassifyResult, pixels: NDArray[np.uint8]) -> None:
    assert result.WhichOneof("outcome") == "classification", result
    np.testing.assert_allclose(
        result.classification.logits, colors_logits(preprocess(pixels, SPEC)), rtol=1e-5
    )


@pytest.fixture(scope="module", params=DECODING)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """With the models `colors` (the default) and `broken`; for tests that leave it as it is."""
    with colors_server(tmp_path_factory.mktemp("server"), "--decoding", request.param) as process:
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[classification_pb2_grpc.ClassificationServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield classification_pb2_grpc.ClassificationServiceStub(channel)


Stub = classification_pb2_grpc.ClassificationServiceStub


def test_raw_and_encoded_images_are_answered_in_order(stub: Stub) -> None:
    pixels = [random_image(seed) for seed in range(40)]
    images = [raw(each) if i % 2 else encoded(each) for i, each in enumerate(pixels)]
    reply = stub.Classify(request(*images), timeout=TIMEOUT_S)
    assert (reply.model.name, reply.model.version) == ("colors", "1")
    for result, each in zip(reply.results, pixels, strict=True):
        assert_logits(result, each)


def test_probabilities_are_the_softmax_best_first(stub: Stub) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:] = (32, 16, 48)  # logits 2, 1, 3
    classes = stub.Classify(request(raw(pixels)), timeout=TIMEOUT_S).results[0].classification.classes
    expected = np.exp([3.0, 2.0, 1.0]) / np.exp([3.0, 2.0, 1.0]).sum()
    assert [(each.label, each.index) for each in classes] == [("blue", 2), ("red", 0), ("green", 1)]
    np.testing.assert_allclose([each.probability for each in classes], expected, rtol=1e-5)
    top = stub.Classify(request(raw(pixels), top_k=1), timeout=TIMEOUT_S).results[0].classification.classes
    assert [each.label for each in top] == ["blue"]
    everything = stub.Classify(request(raw(pixels), top_k=4_000_000_000), timeout=TIMEOUT_S)
    assert len(everything.results[0].classification.classes) == 3


def test_logits_come_only_when_asked_for(stub: Stub) -> None:
    plain = pb.ClassifyRequest(images=[raw(random_image(1))])
    assert not stub.Classify(plain, timeout=TIMEOUT_S).results[0].classification.logits


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


JPEG = saved(Image.fromarray(random_image(7)), "JPEG")
BAD = {
    "nothing at all": (image_pb2.Image(), "empty (0 bytes)"),
    "empty": (image_pb2.Image(encoded=b""), "empty (0 bytes)"),
    "text": (image_pb2.Image(encoded=b"hello, world" * 9), "not an image"),
    "truncated": (image_pb2.Image(encoded=JPEG[: len(JPEG) // 2]), "cut short"),
    "no pixels": (image_pb2.Image(encoded=png_header(0, 7)), "zero pixels"),
    "too many bytes": (
        image_pb2.Image(encoded=JPEG + bytes(15 * 1024 * 1024)),
        "at most 15,728,640 are accepted",
    ),
    "too many pixels": (image_pb2.Image(encoded=png_header(60_000, 60_000)), "3,600,000,000 pixels; at most"),
    "float": (
        image_pb2.Image(encoded=saved(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF")),
        "expected 8 or 16 bits",
    ),
    "raw of another size": (
        image_pb2.Image(raw=image_pb2.RawImage(data=b"abc", height=2, width=2)),
        "expected height × width × 3 = 2 × 2 × 3 = 12",
    ),
    "raw without pixels": (image_pb2.Image(raw=image_pb2.RawImage()), "0 × 0 pixels"),
    "raw far too large": (
        image_pb2.Image(raw=image_pb2.RawImage(data=b"abc", height=2**32 - 1, width=2**32 - 1)),
        "at most 50,000,000",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_its_own_error_and_its_neighbours_are_answered(stub: Stub, case: str) -> None:
    image, words = BAD[case]
    neighbours = [random_image(1), random_image(2)]
    reply = stub.Classify(request(raw(neighbours[0]), image, raw(neighbours[1])), timeout=TIMEOUT_S)
    assert reply.results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert words in reply.results[1].error.message
    assert_logits(reply.results[0], neighbours[0])
    assert_logits(reply.results[2], neighbours[1])
    alone = stub.Classify(request(image), timeout=TIMEOUT_S)
    assert alone.results == [reply.results[1]]


def odd_pictures() -> dict[str, bytes]:
    """Pictures that must be understood, not refused."""
    base = Image.fromarray(random_image(3))
    palette = base.quantize(8)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    second = Image.fromarray(random_image(4))
    return {
        "animated GIF": saved(base, "GIF", save_all=True, append_images=[second]),
        "animated WebP": saved(base, "WEBP", lossless=True, save_all=True, append_images=[second]),
        "animated PNG": saved(base, "PNG", save_all=True, append_images=[second]),
        "CMYK": saved(base.convert("CMYK"), "TIFF"),
        "16-bit": saved(Image.fromarray(np.full((9, 9), 0x70FF, np.uint16)), "PNG"),
        "palette with alpha": saved(palette, "PNG", transparency=bytes([0, 128, 255, 7, 9, 200, 250, 1])),
        "EXIF-rotated": saved(base, "PNG", exif=rotated),
    }


@pytest.mark.parametrize("case", odd_pictures())
def test_an_odd_picture_is_seen_as_the_decoder_sees_it(stub: Stub, case: str) -> None:
    data = odd_pictures()[case]
    reply = stub.Classify(request(image_pb2.Image(encoded=data)), timeout=TIMEOUT_S)
    assert_logits(reply.results[0], decode(data))


def test_an_output_that_is_not_finite_fails_its_own_image(stub: Stub) -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    bright = random_image(5) | np.uint8(1)
    reply = stub.Classify(request(raw(bright), raw(black), model="broken"), timeout=TIMEOUT_S)
    assert_logits(reply.results[0], bright)
    assert reply.results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "aren't finite" in reply.results[1].error.message


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model": "nobody"}, grpc.StatusCode.NOT_FOUND, "broken (version 1), colors (version 1)"),
        ({"model": "colors", "version": "7"}, grpc.StatusCode.NOT_FOUND, "no version '7' of model 'colors'"),
        ({"version": "7"}, grpc.StatusCode.NOT_FOUND, "colors (version 1)"),
        ({"images": []}, grpc.StatusCode.INVALID_ARGUMENT, "0 images; expected 1 to 256"),
        ({"images": [image_pb2.Image()] * 257}, grpc.StatusCode.INVALID_ARGUMENT, "257 images"),
    ],
)
def test_what_concerns_the_whole_request_fails_it(
    stub: Stub, fields: dict[str, object], code: grpc.StatusCode, words: str
) -> None:
    arguments = {"images": [raw(random_image(1))]} | fields
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(pb.ClassifyRequest(**arguments), timeout=TIMEOUT_S)  # type: ignore[arg-type] # a table's row
    assert caught.value.code() is code
    assert words in (caught.value.details() or "")


@pytest.mark.parametrize("method", ["Classify", "ClassifyStream"])
@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"\x12\x02\xc3\x28", b"\x0a\xff\xff\xff\xff\x07"])
def test_bytes_that_are_no_message_are_the_callers_mistake(
    server: ServerProcess, method: str, garbage: bytes
) -> None:
    with grpc.insecure_channel(server.address) as channel:
        # Of both kinds of calls the server gets the same: one message, which isn't one.
        call: Any = channel.stream_stream(f"/fovea.v1.ClassificationService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([garbage]), timeout=TIMEOUT_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "isn't what the contract says" in (caught.value.details() or "")
    assert "x-request-id" in str(caught.value.trailing_metadata())
    assert not [line for line in server.logs if line["event"] in ("request_crashed", "not-json")]


@pytest.mark.parametrize("name", ["x" * 100_000, "☃" * 2000])
def test_a_long_name_does_not_cost_the_status(stub: Stub, server: ServerProcess, name: str) -> None:
    images = [raw(random_image(1))]
    for asked in (
        pb.ClassifyRequest(images=images, model=name),
        pb.ClassifyRequest(images=images, version=name),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(asked, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "colors (version 1)" in (caught.value.details() or "")
    assert max(len(str(line)) for line in server.logs) < 5000


def test_a_message_over_the_cap_is_refused(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(request(image_pb2.Image(encoded=bytes(17 * 1024 * 1024))), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(16 * 1024 * 1024) in (caught.value.details() or "")
        assert stub.Classify(request(raw(random_image(1))), timeout=TIMEOUT_S).results


def test_embeddings_are_the_models_in_order_and_name_their_maker(server: ServerProcess) -> None:
    pixels = [random_image(seed) for seed in range(10)]
    with grpc.insecure_channel(server.address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        images = [*(raw(each) for each in pixels), image_pb2.Image(encoded=b"?")]
        reply = stub.Embed(embedding_pb2.EmbedRequest(images=images), timeout=TIMEOUT_S)
    assert (reply.model.name, reply.model.version) == ("colors", "1")
    assert reply.fingerprint.endswith(":fp32")
    for result, each in zip(reply.results, pixels, strict=False):
        values = np.array(result.embedding.values, np.float32)
        np.testing.assert_allclose(values, colors_embedding(preprocess(each, SPEC)), rtol=1e-4)
        assert np.linalg.norm(values) == pytest.approx(1)
    assert reply.results[10].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_64_callers_at_once_each_get_their_own_answers(server: ServerProcess) -> None:
    def caller(number: int) -> None:
        generator = np.random.default_rng(number)
        with grpc.insecure_channel(
            server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = classification_pb2_grpc.ClassificationServiceStub(channel)
            for turn in range(5):
                pixels = [
                    random_image(1000 * number + 10 * turn + i) for i in range(generator.integers(1, 5))
                ]
                reply = stub.Classify(request(*(raw(each) for each in pixels)), timeout=TIMEOUT_S)
                for result, each in zip(reply.results, pixels, strict=True):
                    assert_logits(result, each)

    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(caller, number) for number in range(64)]:
            done.result()


# Streams.


def stream_requests(count: int, **fields: object) -> Iterator[pb.ClassifyStreamRequest]:
    for i in range(count):
        images = [raw(random_image(10 * i + j)) for j in range(1 + i % 3)]
        yield pb.ClassifyStreamRequest(id=i + 7, request=request(*images), **fields)  # type: ignore[arg-type] # as given


def test_a_stream_is_answered_in_order(stub: Stub) -> None:
    replies = list(stub.ClassifyStream(stream_requests(100), timeout=TIMEOUT_S))
    assert [reply.id for reply in replies] == [i + 7 for i in range(100)]
    for i, reply in enumerate(replies):
        assert len(reply.response.results) == 1 + i % 3
        for j, result in enumerate(reply.response.results):
            assert_logits(result, random_image(10 * i + j))


def test_a_message_that_fails_does_not_end_its_stream(stub: Stub) -> None:
    messages = list(stream_requests(5))
    messages[1].request.model = "nobody"
    del messages[2].request.images[:]
    messages[3].request.images[0].encoded = b"?"
    replies = list(stub.ClassifyStream(iter(messages), timeout=TIMEOUT_S))
    assert [reply.WhichOneof("outcome") for reply in replies] == [
        "response",
        "error",
        "error",
        "response",
        "response",
    ]
    assert replies[1].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert replies[2].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert replies[3].response.results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_an_embedding_stream_is_answered_in_order(server: ServerProcess) -> None:
    pixels = [random_image(seed) for seed in range(30)]
    with grpc.insecure_channel(server.address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        requests = (
            embedding_pb2.EmbedStreamRequest(id=i, request=embedding_pb2.EmbedRequest(images=[raw(each)]))
            for i, each in enumerate(pixels)
        )
        replies = list(stub.EmbedStream(requests, timeout=TIMEOUT_S))
    for i, (reply, each) in enumerate(zip(replies, pixels, strict=True)):
        assert reply.id == i
        values = np.array(reply.response.results[0].embedding.values)
        np.testing.assert_allclose(values, colors_embedding(preprocess(each, SPEC)), rtol=1e-4)


@pytest.fixture(scope="module", params=DECODING)
def slow_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One image at a time, each of which takes a while; little room."""
    folder = tmp_path_factory.mktemp("slow")
    write_slow(folder / "models")
    options = (
        "--max-batch-size", "1", "--queue-capacity", "8", "--max-images-per-request", "4",
        "--stream-window-images", "3", "--decoding", request.param,
    )  # fmt: skip
    with ServerProcess(folder / "models", folder / "index", *options) as process:
        yield process


@pytest.fixture
def slow(slow_server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(slow_server.address) as channel:
        yield classification_pb2_grpc.ClassificationServiceStub(channel)


def runs(server: ServerProcess) -> float:
    return server.metrics().get('fovea_batch_size_count{model="slow"}', 0)


def test_a_full_queue_refuses_at_once_and_answers_the_others(slow: Stub, slow_server: ServerProcess) -> None:
    calls = [slow.Classify.future(request(raw(random_image(i))), timeout=TIMEOUT_S) for i in range(30)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 8
    refused = calls[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    assert "room for 0 images" in (refused.details() or "")
    assert int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    metrics = slow_server.metrics()
    method = 'method="/fovea.v1.ClassificationService/Classify"'
    assert metrics[f'fovea_requests_total{{code="RESOURCE_EXHAUSTED",{method},model="slow"}}'] >= 1
    assert metrics['fovea_images_total{code="RESOURCE_EXHAUSTED",model="slow"}'] >= 1
    assert metrics['fovea_shed_total{model="slow",reason="full"}'] >= 1
    for i, call in enumerate(calls):
        if call.code() is grpc.StatusCode.OK:
            assert_logits(call.result().results[0], random_image(i))


def occupy(slow: Stub, server: ServerProcess) -> list[Any]:
    """Five calls that keep the model busy, one of them running and the others queued behind it."""
    started = 'fovea_queue_seconds_count{model="slow"}'
    before = server.metrics().get(started, 0)
    ahead = [slow.Classify.future(request(raw(random_image(i))), timeout=TIMEOUT_S) for i in range(5)]
    while not ahead[-1].done():
        metrics = server.metrics()
        if metrics['fovea_queue_depth{model="slow"}'] >= 4 and metrics.get(started, 0) > before:
            break
    return ahead


def test_work_whose_deadline_passed_is_not_done(slow: Stub, slow_server: ServerProcess) -> None:
    before = slow_server.metrics()
    ahead = occupy(slow, slow_server)
    hasty = [slow.Classify.future(request(raw(random_image(i))), timeout=0.02) for i in range(3)]
    # Refused at the door, unless the caller's own timer was quicker.
    either = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert {call.code() for call in hasty} <= either
    for i, call in enumerate(ahead):
        assert_logits(call.result().results[0], random_image(i))
    last = slow.Classify(request(raw(random_image(9))), timeout=TIMEOUT_S)
    assert_logits(last.results[0], random_image(9))
    after = slow_server.metrics()
    runs_name = 'fovea_batch_size_count{model="slow"}'
    assert after[runs_name] == before.get(runs_name, 0) + 6
    # Those that reached the server are counted as what they are, and under their model.
    shed = {
        reason: after[name] - before[name]
        for reason in ("expired", "dropped_late", "predicted_late", "cancelled", "full")
        for name in [f'fovea_shed_total{{model="slow",reason="{reason}"}}']
    }
    assert shed["cancelled"] == shed["full"] == 0
    assert 0 <= sum(shed.values()) <= 3
    method = 'method="/fovea.v1.ClassificationService/Classify"'
    expired = f'fovea_requests_total{{code="DEADLINE_EXCEEDED",{method},model="slow"}}'
    assert after.get(expired, 0) - before.get(expired, 0) == shed["expired"] + shed["dropped_late"]
    assert f'fovea_requests_total{{code="CANCELLED",{method},model="slow"}}' not in after


def at_work(server: ServerProcess) -> bool:
    return server.metrics()['fovea_queue_depth{model="slow"}'] > 0


def test_work_whose_caller_left_is_not_done(slow: Stub, slow_server: ServerProcess) -> None:
    before = runs(slow_server)
    ahead = occupy(slow, slow_server)
    # Later deadlines, so that they are behind those that keep the model busy.
    leaving = [slow.Classify.future(request(raw(random_image(i))), timeout=2 * TIMEOUT_S) for i in range(2)]
    staying = slow.Classify.future(request(raw(random_image(9))), timeout=2 * TIMEOUT_S)
    for call in leaving:
        call.cancel()
    for i, call in enumerate(ahead):
        assert_logits(call.result().results[0], random_image(i))
    assert_logits(staying.result().results[0], random_image(9))
    assert runs(slow_server) == before + 6


def test_a_stream_faster_than_the_server_is_held_back_and_loses_nothing(
    slow: Stub, slow_server: ServerProcess
) -> None:
    sent = 0
    most_ahead = 0
    refused = 'fovea_shed_total{model="slow",reason="full"}'
    refused_before = slow_server.metrics()[refused]

    def messages() -> Iterator[pb.ClassifyStreamRequest]:
        nonlocal sent
        filler = bytes(2_000_000)  # more than HTTP/2's windows take in beforehand
        for i in range(20):
            sent = i + 1
            pixels = pb.ClassifyRequest(images=[raw(random_image(i)), image_pb2.Image(encoded=filler)])
            pixels.include_logits = True
            yield pb.ClassifyStreamRequest(id=i, request=pixels)

    for i, reply in enumerate(slow.ClassifyStream(messages(), timeout=120)):
        most_ahead = max(most_ahead, sent - i)
        assert reply.id == i
        assert_logits(reply.response.results[0], random_image(i))
        assert reply.response.results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert sent == 20
    assert most_ahead < 15
    assert slow_server.metrics()[refused] == refused_before


def test_a_message_of_a_stream_has_its_own_deadline(slow: Stub) -> None:
    messages = [pb.ClassifyStreamRequest(id=i, request=request(raw(random_image(i)))) for i in range(4)]
    messages[2].timeout_ms = 1
    replies = list(slow.ClassifyStream(iter(messages), timeout=TIMEOUT_S))
    outcomes = [reply.WhichOneof("outcome") for reply in replies]
    assert outcomes == ["response", "response", "error", "response"]
    assert replies[2].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def test_streams_survive_messages_that_expire_while_they_wait_for_room(slow: Stub) -> None:
    def messages(number: int) -> Iterator[pb.ClassifyStreamRequest]:
        draw = random.Random(number)
        for i in range(40):
            yield pb.ClassifyStreamRequest(
                id=i, request=request(raw(random_image(i))), timeout_ms=draw.randint(3, 40)
            )

    def caller(number: int) -> list[tuple[int, int]]:
        replies = slow.ClassifyStream(messages(number), timeout=120)
        return [(reply.id, reply.error.code) for reply in replies]

    with ThreadPoolExecutor(12) as pool:
        for replies in pool.map(caller, range(12)):
            assert [reply[0] for reply in replies] == list(range(40))
            assert {reply[1] for reply in replies} <= {0, grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}


def test_streams_leave_room_for_unary_calls(slow: Stub, slow_server: ServerProcess) -> None:
    go_on = threading.Event()

    def messages() -> Iterator[pb.ClassifyStreamRequest]:
        for i in range(6):
            yield pb.ClassifyStreamRequest(id=i, request=request(raw(random_image(i))))
        go_on.wait(timeout=60)

    streams = [slow.ClassifyStream(messages(), timeout=120) for _ in range(4)]
    firsts = [next(stream) for stream in streams]
    assert all(reply.response.results for reply in firsts)
    unary = slow.Classify(request(raw(random_image(5))), timeout=TIMEOUT_S)
    assert_logits(unary.results[0], random_image(5))
    go_on.set()
    for stream in streams:
        assert len(list(stream)) == 5


async def test_a_stream_that_is_dropped_leaves_nothing_behind(slow_server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(slow_server.address) as channel:
        stub: classification_pb2_grpc.ClassificationServiceAsyncStub = (
            classification_pb2_grpc.ClassificationServiceStub(channel)  # type: ignore[assignment] # one class, two uses
        )
        call = stub.ClassifyStream()
        for i in range(10):
            await call.write(pb.ClassifyStreamRequest(id=i, request=request(raw(random_image(i)))))
        first = await call.read()
        assert isinstance(first, pb.ClassifyStreamResponse)
        assert first.id == 0
        call.cancel()
        for _ in range(600):
            if not at_work(slow_server):
                break
            await asyncio.sleep(0.05)
        assert not at_work(slow_server)


def test_no_default_among_several_models_must_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_colors(tmp_path / "models", name)
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(request(raw(random_image(1))), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "a (version 1), b (version 1)" in (caught.value.details() or "")
        assert stub.Classify(request(raw(random_image(1)), model="b"), timeout=TIMEOUT_S).model.name == "b"


def test_the_highest_version_is_served(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        write_colors(tmp_path / "models", "colors", version)
    (tmp_path / "models" / "colors" / ".11-half-written").mkdir()
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        reply = classification_pb2_grpc.ClassificationServiceStub(channel).Classify(
            request(raw(random_image(1))), timeout=TIMEOUT_S
        )
        assert reply.model.version == "10"


def test_a_reply_too_large_to_be_sent_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    options = (
        "--max-message-bytes", "65536", "--max-image-bytes", "60000", "--max-images-per-request", "4000",
        "--queue-capacity", "8000", "--stream-window-images", "4000",
    )  # fmt: skip
    # Two bytes each, and each its own error.
    many = pb.ClassifyRequest(images=[image_pb2.Image(encoded=b"")] * 4000)
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", *options) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(many, timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "65,536" in str(caught.value.details())
        assert "fewer images" in str(caught.value.details())
        # On a stream it is that message's own error, and the others are answered.
        few = request(raw(random_image(1)))
        messages = [pb.ClassifyStreamRequest(id=i, request=each) for i, each in enumerate((few, many, few))]
        replies = list(stub.ClassifyStream(iter(messages), timeout=TIMEOUT_S))
        assert [reply.WhichOneof("outcome") for reply in replies] == ["response", "error", "response"]
        assert replies[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_saturation_is_the_predicted_backlog_over_the_default_timeout(
    slow: Stub, slow_server: ServerProcess
) -> None:
    name = 'fovea_saturation{model="slow"}'
    assert slow_server.metrics()[name] == 0
    calls = [slow.Classify.future(request(raw(random_image(i))), timeout=TIMEOUT_S) for i in range(4)]
    seen = slow_server.metrics()
    while seen['fovea_queue_depth{model="slow"}'] == 0:
        seen = slow_server.metrics()
    assert seen[name] > 0
    for call in calls:
        call.result()
    assert slow_server.metrics()[name] == 0
