"""The messages: what is in them, how many there are, and that they are what the contract says."""

import numpy as np
import pytest
from fovea.v1 import classification_pb2, embedding_pb2, priority_pb2, retrieval_pb2

from service.cli.bench import workload as workloads
from service.cli.bench.methods import METHODS, Fields, Reply, stream_fields
from service.cli.bench.payload import RawPixels, Size

FIELDS = Fields("resnet", "2", 3, "photos", "abc:fp32", "bulk")
FILES = [b"one", b"two", b"three"]


def test_a_message_carries_consecutive_pictures() -> None:
    workload = workloads.of_pictures(METHODS["classify"], FIELDS, FILES, 2)
    requests = [classification_pb2.ClassifyRequest.FromString(message) for message in workload.messages]
    assert [[image.encoded for image in request.images] for request in requests] == [
        [b"one", b"two"],
        [b"three", b"one"],
        [b"two", b"three"],
    ]
    first = requests[0]
    assert (first.model, first.version, first.top_k) == ("resnet", "2", 3)
    assert first.priority == priority_pb2.PRIORITY_BULK
    assert workload.per_message == 2


def test_raw_pixels_go_as_such() -> None:
    raw = RawPixels(bytes(range(24)), Size(4, 2))
    (message,) = workloads.of_pictures(METHODS["embed"], FIELDS, [raw], 1).messages
    (image,) = embedding_pb2.EmbedRequest.FromString(message).images
    assert (image.raw.data, image.raw.height, image.raw.width) == (raw.data, 4, 2)


def test_memory_bounds_the_messages() -> None:
    workload = workloads.of_pictures(
        METHODS["classify"], FIELDS, [b"x" * 100, b"y" * 100, b"z" * 100], 1, max_total_bytes=250
    )
    assert len(workload.messages) == 2
    assert workload.average_bytes >= 100


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("classify-stream", classification_pb2.ClassifyStreamRequest),
        ("embed-stream", embedding_pb2.EmbedStreamRequest),
    ],
)
def test_a_streams_id_and_timeout_are_appended(method: str, message: type) -> None:
    (data,) = workloads.of_pictures(METHODS[method], FIELDS, [b"one"], 1).messages
    for number, timeout_ms in ((1, 0), (127, 1), (128, 250), (2**40, 4_000_000_000)):
        request = message.FromString(data + stream_fields(number, timeout_ms))  # type: ignore[attr-defined] # generated
        assert (request.id, request.timeout_ms) == (number, timeout_ms)
        assert request.request.images[0].encoded == b"one"


@pytest.mark.parametrize("method", ["upsert", "upsert-vectors"])
def test_upserts_name_each_item_once(method: str) -> None:
    if method == "upsert":
        workload = workloads.of_pictures(METHODS[method], FIELDS, [b"one", b"two"], 5)
    else:
        workload = workloads.of_vectors(METHODS[method], FIELDS, 8, 5, seed=1)
    for message in workload.messages:
        request = retrieval_pb2.UpsertRequest.FromString(message)
        ids = [item.id for item in request.items]
        assert len(set(ids)) == 5
        assert all(name.startswith("fovea-bench-") for name in ids)
        assert request.collection == "photos"
        # What made the images' vectors is the server's to say.
        assert request.fingerprint == ("abc:fp32" if method == "upsert-vectors" else "")


def test_query_vectors_are_directions_of_a_seed() -> None:
    def queries(seed: int) -> list[list[float]]:
        workload = workloads.of_vectors(METHODS["search-vectors"], FIELDS, 16, 2, seed)
        requests = [retrieval_pb2.SearchRequest.FromString(message) for message in workload.messages]
        assert {request.top_k for request in requests} == {3}
        return [list(query.vector.values) for request in requests for query in request.queries]

    vectors = np.array(queries(1))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert queries(1) == queries(1)
    assert queries(1) != queries(2)


def test_get_and_delete_name_what_upsert_writes() -> None:
    first = retrieval_pb2.DeleteRequest.FromString(workloads.of_ids(METHODS["delete"], FIELDS, 2).messages[0])
    assert list(first.ids) == ["fovea-bench-0", "fovea-bench-1"]


# Replies.


def test_a_failed_image_fails_its_call() -> None:
    reply = classification_pb2.ClassifyResponse()
    reply.results.add().classification.classes.add(label="hen")
    failed = reply.results.add()
    failed.error.code, failed.error.message = 3, "the image is broken"
    read = METHODS["classify"].read
    assert read(reply.SerializeToString(), 2) == Reply("INVALID_ARGUMENT", "the image is broken")
    del reply.results[1]
    assert read(reply.SerializeToString(), 1) == Reply("OK")
    assert read(reply.SerializeToString(), 2).code == "MALFORMED_REPLY"


def test_a_streams_reply_is_an_answer_or_a_refusal() -> None:
    read = METHODS["embed-stream"].read
    answer = embedding_pb2.EmbedStreamResponse(id=7)
    answer.response.results.add().embedding.values.extend([0.6, 0.8])
    assert read(answer.SerializeToString(), 1) == Reply("OK", id=7)
    refusal = embedding_pb2.EmbedStreamResponse(id=8)
    refusal.error.code, refusal.error.message = 4, "too late"
    assert read(refusal.SerializeToString(), 1) == Reply("DEADLINE_EXCEEDED", "too late", id=8)
    assert read(embedding_pb2.EmbedStreamResponse(id=9).SerializeToString(), 1).code == "MALFORMED_REPLY"


def test_answers_that_came_with_another_are_read_too() -> None:
    reply = classification_pb2.ClassifyStreamResponse(id=1)
    reply.response.results.add().classification.classes.add(label="hen")
    refused = reply.following.add(id=2)
    refused.error.code = 8
    read = METHODS["classify-stream"].read(reply.SerializeToString(), 1)
    assert read == Reply("OK", id=1, following=(Reply("RESOURCE_EXHAUSTED", id=2),))


def test_a_failed_item_fails_its_upsert() -> None:
    reply = retrieval_pb2.UpsertResponse()
    reply.results.add(id="a")
    read = METHODS["upsert"].read
    assert read(reply.SerializeToString(), 1) == Reply("OK")
    failed = reply.results.add(id="b")
    failed.error.code, failed.error.message = 9, "another model's"
    assert read(reply.SerializeToString(), 2) == Reply("FAILED_PRECONDITION", "another model's")
