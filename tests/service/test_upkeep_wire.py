"""Snapshots and re-embedding over the wire, and what a server that was killed leaves of them."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from fovea.v1 import image_pb2, model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from service.preprocess import Preprocessing
from service.retrieval.embedded import EmbeddedIndex
from service.retrieval.index import CollectionSpec, Metric
from tests.client.pictures import expected_embedding, file_bytes, pixels
from tests.client.waiting import until
from tests.packages import EMBEDDING_DIMENSION, SIZE, write_colors, write_pixels, write_slow
from tests.servers import ServerProcess
from tests.service.refusal import refusal

TIMEOUT_S = 30
COUNT = 60
COLORS = np.random.default_rng(8).integers(0, 256, (COUNT, 3)).tolist()
PICTURES = [pixels((red, green, blue)) for red, green, blue in COLORS]
Stub = retrieval_pb2_grpc.RetrievalServiceStub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, an index with a left-over of a dead server, and a folder of photos."""
    folder = tmp_path_factory.mktemp("upkeep")
    write_colors(folder / "models")
    write_pixels(folder / "models", Preprocessing(SIZE, SIZE, SIZE, "bilinear"))
    index = EmbeddedIndex(folder / "index")
    index.create(CollectionSpec("fovea-building.5f000000.0123456789abcdef", 2, Metric.L2, ""))
    index.close()
    (folder / "photos").mkdir()
    for number, picture in enumerate(PICTURES):
        (folder / "photos" / f"{number:02}.png").write_bytes(file_bytes(picture))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    """Keeps snapshots, and may open the photos."""
    options = (
        "--default-model", "colors",
        "--snapshot-path", str(folder / "snapshots"),
        "--image-root", str(folder / "photos"),
    )  # fmt: skip
    with ServerProcess(folder / "models", folder / "index", *options) as process:
        yield process


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    with grpc.insecure_channel(server.address) as channel:
        yield Stub(channel)


@pytest.fixture
def photos(stub: Stub, folder: Path) -> Iterator[str]:
    """60 photos with their places, embedded by `pixels`."""
    origin = pb.ModelSelector(model="pixels")
    types = {"uri": pb.ATTRIBUTE_TYPE_STRING, "number": pb.ATTRIBUTE_TYPE_INT}
    asked = pb.CreateCollectionRequest(collection="photos", model=origin, attributes=types)
    stub.CreateCollection(asked, timeout=TIMEOUT_S)
    write(stub, folder, range(COUNT))
    yield "photos"
    for collection in stub.ListCollections(pb.ListCollectionsRequest(), timeout=TIMEOUT_S).collections:
        stub.DropCollection(pb.DropCollectionRequest(collection=collection.name), timeout=TIMEOUT_S)


def write(stub: Stub, folder: Path, numbers: range) -> None:
    request = pb.UpsertRequest(collection="photos", items=items(folder, numbers))
    reply = stub.Upsert(request, timeout=TIMEOUT_S)
    assert not any(result.HasField("error") for result in reply.results)


def items(folder: Path, numbers: range) -> list[pb.UpsertItem]:
    return [
        pb.UpsertItem(
            id=f"{number:02}",
            image=image_pb2.Image(encoded=file_bytes(PICTURES[number])),
            attributes={
                "uri": pb.AttributeValue(string_value=str(folder / "photos" / f"{number:02}.png")),
                "number": pb.AttributeValue(int_value=number),
            },
        )
        for number in numbers
    ]


def scanned(stub: Stub, name: str) -> list[pb.Item]:
    asked = pb.ScanRequest(collection=name, include_vectors=True)
    return list(stub.Scan(asked, timeout=TIMEOUT_S).items)


def test_the_left_over_of_a_dead_server_is_gone(stub: Stub, server: ServerProcess) -> None:
    assert not stub.ListCollections(pb.ListCollectionsRequest(), timeout=TIMEOUT_S).collections
    (line,) = [line for line in server.logs if line["event"] == "left_over_dropped"]
    assert line["collection"] == "fovea-building.5f000000.0123456789abcdef"


def test_snapshot_list_and_restore(stub: Stub, photos: str, folder: Path) -> None:
    before = scanned(stub, photos)
    asked = pb.SnapshotRequest(collection=photos, name="first")
    snapshot = stub.Snapshot(asked, timeout=TIMEOUT_S).snapshot
    file = folder / "snapshots" / "first.parquet"
    assert (snapshot.name, snapshot.size_bytes) == ("first", file.stat().st_size)
    default = stub.Snapshot(pb.SnapshotRequest(collection=photos), timeout=TIMEOUT_S).snapshot
    assert default.name.startswith("photos-2")
    found = stub.ListSnapshots(pb.ListSnapshotsRequest(), timeout=TIMEOUT_S).snapshots
    assert list(found) == [snapshot, default]

    restored = stub.Restore(pb.RestoreRequest(name="first", collection="copy"), timeout=TIMEOUT_S).collection
    assert (restored.name, restored.count, restored.dimension) == ("copy", COUNT, 8)
    assert restored.model.name == "pixels"
    assert set(restored.attributes) == {"uri", "number"}
    assert scanned(stub, "copy") == before
    image = pb.SearchQuery(image=image_pb2.Image(encoded=file_bytes(PICTURES[7])))
    one = pb.SearchRequest(collection="copy", queries=[image], top_k=1)
    ((neighbor,),) = [result.neighbors.neighbors for result in stub.Search(one, timeout=TIMEOUT_S).results]
    assert neighbor.attributes["number"].int_value == 7

    codes = grpc.StatusCode
    taken = pb.SnapshotRequest(collection=photos, name="first")
    assert "'first' exists already" in refusal(lambda: stub.Snapshot(taken), codes.ALREADY_EXISTS)
    again = pb.RestoreRequest(name="first")
    assert "'photos' exists already" in refusal(lambda: stub.Restore(again), codes.ALREADY_EXISTS)
    unknown = pb.RestoreRequest(name="second")
    assert "there are: first" in refusal(lambda: stub.Restore(unknown), codes.NOT_FOUND)
    escape = pb.RestoreRequest(name="../first", collection="x")
    assert "snapshot name '../first'" in refusal(lambda: stub.Restore(escape), codes.INVALID_ARGUMENT)
    nobody = pb.SnapshotRequest(collection="nobody's")
    refusal(lambda: stub.Snapshot(nobody), codes.NOT_FOUND)
    (folder / "snapshots" / "cut.parquet").write_bytes(file.read_bytes()[:-9])
    cut = pb.RestoreRequest(name="cut", collection="x")
    assert "can't be read" in refusal(lambda: stub.Restore(cut), codes.FAILED_PRECONDITION)
    names = [each.name for each in stub.ListCollections(pb.ListCollectionsRequest()).collections]
    assert names == ["copy", "photos"]


def test_reembedding_tells_its_progress_and_takes_the_name(stub: Stub, photos: str) -> None:
    asked = pb.ReembedRequest(collection=photos, model=pb.ModelSelector(model="colors"))
    replies = list(stub.Reembed(asked, timeout=TIMEOUT_S))
    assert [reply.done for reply in replies] == sorted(reply.done for reply in replies)
    assert (replies[0].done, replies[-1].done) == (0, COUNT)
    assert {reply.total for reply in replies} == {COUNT}
    assert [reply.HasField("collection") for reply in replies] == [False] * (len(replies) - 1) + [True]
    made = replies[-1].collection
    assert (made.name, made.dimension, made.model.name) == (photos, EMBEDDING_DIMENSION, "colors")
    for number, item in enumerate(scanned(stub, photos)):
        np.testing.assert_allclose(item.vector.values, expected_embedding(PICTURES[number]), rtol=1e-4)
        assert item.attributes["number"].int_value == number


def test_reembedding_says_what_is_wrong(stub: Stub, photos: str) -> None:
    codes = grpc.StatusCode

    def reembed(**fields: object) -> object:
        asked = pb.ReembedRequest(collection=photos, **fields)  # type: ignore[arg-type] # as the cases say
        return list(stub.Reembed(asked, timeout=TIMEOUT_S))

    unknown = pb.ModelSelector(model="nobody's")
    assert "colors" in refusal(lambda: reembed(model=unknown), codes.NOT_FOUND)
    outside = pb.UpsertItem(
        id="33a",
        vector=model_pb2.Vector(values=[1.0] * 8),
        attributes={"uri": pb.AttributeValue(string_value="/etc/passwd")},
    )
    bare = pb.UpsertItem(id="bare", vector=model_pb2.Vector(values=[1.0] * 8))
    stub.Upsert(pb.UpsertRequest(collection=photos, items=[outside, bare]), timeout=TIMEOUT_S)
    message = refusal(lambda: reembed(), codes.INVALID_ARGUMENT)
    assert message.startswith("item '33a': '/etc/passwd' lies outside the server's image_roots")
    assert len(scanned(stub, photos)) == COUNT + 2  # as it was
    asked = pb.ReembedRequest(collection=photos, skip_broken=True)
    skipped = [result for reply in stub.Reembed(asked, timeout=TIMEOUT_S) for result in reply.skipped]
    assert [result.id for result in skipped] == ["33a", "bare"]
    assert "no attribute 'uri'" in skipped[1].error.message
    assert len(scanned(stub, photos)) == COUNT

    stub.CreateCollection(pb.CreateCollectionRequest(collection="plain"), timeout=TIMEOUT_S)
    plain = pb.ReembedRequest(collection="plain")
    message = refusal(lambda: list(stub.Reembed(plain, timeout=TIMEOUT_S)), codes.FAILED_PRECONDITION)
    assert "the collection doesn't declare it" in message


def test_a_reembedding_that_is_cancelled_changes_nothing(stub: Stub, photos: str, folder: Path) -> None:
    asked = pb.ReembedRequest(collection=photos, model=pb.ModelSelector(model="colors"))
    call = stub.Reembed(asked, timeout=TIMEOUT_S)
    next(call)
    call.cancel()
    write(stub, folder, range(3))
    found = stub.GetCollection(pb.GetCollectionRequest(collection=photos), timeout=TIMEOUT_S).collection
    if found.dimension == 8:  # unless it was done already
        assert found.count == COUNT

    def finished() -> bool:
        try:
            return list(stub.Reembed(asked, timeout=TIMEOUT_S))[-1].collection.count == COUNT
        except grpc.RpcError as error:
            # The server hasn't noticed yet that the first one's caller left.
            return error.code() is not grpc.StatusCode.FAILED_PRECONDITION

    until(finished)
    found = stub.GetCollection(pb.GetCollectionRequest(collection=photos), timeout=TIMEOUT_S).collection
    assert (found.dimension, found.count) == (EMBEDDING_DIMENSION, COUNT)


def test_writers_beside_it_lose_nothing(stub: Stub, photos: str, folder: Path) -> None:
    """One with single calls, one on a stream."""
    done = threading.Event()
    turns = []
    streamed: list[pb.UpsertStreamResponse] = []

    def go_on_writing() -> None:
        while not done.is_set():
            write(stub, folder, range(10))
            turns.append(1)

    def messages() -> Iterator[pb.UpsertStreamRequest]:
        while not done.is_set():
            for start in range(20, 40, 5):
                request = pb.UpsertRequest(collection=photos, items=items(folder, range(start, start + 5)))
                yield pb.UpsertStreamRequest(request=request)

    writers = [
        threading.Thread(target=go_on_writing),
        threading.Thread(target=lambda: streamed.extend(stub.UpsertStream(messages()))),
    ]
    for writer in writers:
        writer.start()
    try:
        for model in ("colors", "pixels", "colors"):
            asked = pb.ReembedRequest(collection=photos, model=pb.ModelSelector(model=model))
            assert list(stub.Reembed(asked, timeout=TIMEOUT_S))[-1].collection.model.name == model
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert turns
    assert streamed
    for reply in streamed:
        assert not any(result.HasField("error") for result in reply.response.results), reply
        assert not reply.HasField("error"), reply
    found = scanned(stub, photos)
    assert len(found) == COUNT
    for number, item in enumerate(found):
        np.testing.assert_allclose(item.vector.values, expected_embedding(PICTURES[number]), rtol=1e-4)


def test_a_malformed_request_is_the_callers(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_stream(
            "/fovea.v1.RetrievalService/Reembed", response_deserializer=pb.ReembedResponse.FromString
        )(b"\xff\xff\xff", timeout=TIMEOUT_S)  # type: ignore[arg-type] # bytes as they are
        assert "isn't what the contract says" in refusal(lambda: next(call), grpc.StatusCode.INVALID_ARGUMENT)


def test_a_server_without_folders_says_which_settings(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index") as bare,
        grpc.insecure_channel(bare.address) as channel,
    ):
        stub, code = Stub(channel), grpc.StatusCode.FAILED_PRECONDITION
        for call in (
            lambda: stub.Snapshot(pb.SnapshotRequest(collection="c"), timeout=TIMEOUT_S),
            lambda: stub.Restore(pb.RestoreRequest(name="c"), timeout=TIMEOUT_S),
            lambda: stub.ListSnapshots(pb.ListSnapshotsRequest(), timeout=TIMEOUT_S),
        ):
            assert "--snapshot-path (FOVEA_SNAPSHOT_PATH)" in refusal(call, code)
        reembed = pb.ReembedRequest(collection="c")
        assert "--image-root (FOVEA_IMAGE_ROOTS)" in refusal(
            lambda: list(stub.Reembed(reembed, timeout=TIMEOUT_S)), code
        )
        assert bare.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_in_the_middle_leaves_the_old_collection(
    tmp_path: Path, folder: Path, how: signal.Signals
) -> None:
    write_colors(tmp_path / "models")
    write_slow(tmp_path / "models", side=800)
    options = (
        "--default-model", "colors", "--image-root", str(folder / "photos"), "--max-batch-size", "1",
        "--drain-timeout-s", "3600",
    )  # fmt: skip
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", *options) as ending,
        grpc.insecure_channel(ending.address) as channel,
    ):
        stub = Stub(channel)
        types = {"uri": pb.ATTRIBUTE_TYPE_STRING}
        asked = pb.CreateCollectionRequest(collection="photos", attributes=types)
        before = stub.CreateCollection(asked, timeout=TIMEOUT_S).collection
        write(stub, folder, range(COUNT))
        call = stub.Reembed(pb.ReembedRequest(collection="photos", model=pb.ModelSelector(model="slow")))
        assert next(call).done == 0
        ending.process.send_signal(how)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        if how is signal.SIGTERM:
            assert "the collection is as it was" in (caught.value.details() or "")
        assert ending.wait() == (0 if how is signal.SIGTERM else -how)
    with (
        ServerProcess(tmp_path / "models", tmp_path / "index", *options) as again,
        grpc.insecure_channel(again.address) as channel,
    ):
        stub = Stub(channel)
        (found,) = stub.ListCollections(pb.ListCollectionsRequest(), timeout=TIMEOUT_S).collections
        assert (found.name, found.count, found.fingerprint) == ("photos", COUNT, before.fingerprint)
        for number, item in enumerate(scanned(stub, "photos")):
            np.testing.assert_allclose(item.vector.values, expected_embedding(PICTURES[number]), rtol=1e-4)
        dropped = [line for line in again.logs if line["event"] == "left_over_dropped"]
        assert len(dropped) == (how is signal.SIGKILL)
