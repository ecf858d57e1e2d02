"""Every method of the contract that can be put under load: its request messages, and what a reply says."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import numpy as np
from fovea.v1 import (
    classification_pb2,
    embedding_pb2,
    image_pb2,
    model_pb2,
    models_pb2,
    priority_pb2,
    retrieval_pb2,
    status_pb2,
)
from google.protobuf.message import Message
from numpy.typing import NDArray

from service.cli.bench.payload import Payload, RawPixels

OK = "OK"
# Not a code of gRPC's: the reply isn't one for the request.
MALFORMED_REPLY = "MALFORMED_REPLY"
PRIORITIES = {
    "interactive": priority_pb2.PRIORITY_INTERACTIVE,
    "bulk": priority_pb2.PRIORITY_BULK,
}
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Reply(NamedTuple):
    """How one call ended.

    Attributes:
        code: OK; a gRPC status code's name, of the call or of the first image in it that failed; or
            MALFORMED_REPLY.
        detail: the error's message.
        retry_after_s: when the server says that a refused caller may come back.
        id: of a stream's reply, the request's.
        following: the messages' after it, whose answers came with it.
    """

    code: str
    detail: str = ""
    retry_after_s: float | None = None
    id: int = 0
    following: "tuple[Reply, ...]" = ()


@dataclass(frozen=True)
class Fields:
    """What all messages of a run have in common; see the contract in protos/ for each."""

    model: str = ""
    version: str = ""
    top_k: int = 0
    collection: str = ""
    fingerprint: str = ""
    priority: str = "interactive"


@dataclass(frozen=True)
class Content:
    """What one message carries; those that its method has no use for are empty.

    Attributes:
        pictures: one per image.
        vectors: float32 [dimension] each.
        ids: of stored items.
    """

    pictures: Sequence[Payload] = ()
    vectors: Sequence[NDArray[np.float32]] = ()
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Method:
    """One way of calling the server.

    Attributes:
        name: as `--method` takes it.
        path: gRPC's, /package.service/method.
        streams: whether messages go over long-lived bidirectional streams.
        carries: "pictures", "vectors", "ids" or "" (nothing to repeat).
        in_collection: whether it needs a collection.
        make: makes one message; of a stream, without the fields of `stream_fields`.
        read: a reply's bytes and how many results it should have → how the call ended.
    """

    name: str
    path: str
    carries: str
    in_collection: bool
    make: Callable[[Fields, Content], Message]
    read: Callable[[bytes, int], Reply]
    streams: bool = False

    def message(self, fields: Fields, content: Content) -> bytes:
        """One message as it is on the wire."""
        return self.make(fields, content).SerializeToString()


def stream_fields(number: int, timeout_ms: int) -> bytes:
    """`id` and `timeout_ms` of a ClassifyStreamRequest or EmbedStreamRequest, to be appended to it.

    Protobuf's encoding of a message is the concatenation of its fields, in any order.
    """
    return b"\x08" + _varint(number) + (b"\x18" + _varint(timeout_ms) if timeout_ms else b"")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


# Requests.


def _image(picture: Payload) -> image_pb2.Image:
    if isinstance(picture, RawPixels):
        return image_pb2.Image(
            raw=image_pb2.RawImage(data=picture.data, height=picture.size.height, width=picture.size.width)
        )
    return image_pb2.Image(encoded=picture)


def _classify(fields: Fields, content: Content) -> classification_pb2.ClassifyRequest:
    return classification_pb2.ClassifyRequest(
        images=map(_image, content.pictures),
        model=fields.model,
        version=fields.version,
        top_k=fields.top_k,
        priority=PRIORITIES[fields.priority],
    )


def _embed(fields: Fields, content: Content) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(
        images=map(_image, content.pictures),
        model=fields.model,
        version=fields.version,
        priority=PRIORITIES[fields.priority],
    )


def _search(fields: Fields, content: Content) -> retrieval_pb2.SearchRequest:
    queries = [
        *(retrieval_pb2.SearchQuery(image=_image(picture)) for picture in content.pictures),
        *(retrieval_pb2.SearchQuery(vector=_vector(vector)) for vector in content.vectors),
    ]
    return retrieval_pb2.SearchRequest(
        collection=fields.collection,
        queries=queries,
        top_k=fields.top_k,
        fingerprint=_origin(fields, content),
    )


def _upsert(fields: Fields, content: Content) -> retrieval_pb2.UpsertRequest:
    images, vectors = map(_image, content.pictures), map(_vector, content.vectors)
    items: Iterable[retrieval_pb2.UpsertItem]
    if content.pictures:
        items = (
            retrieval_pb2.UpsertItem(id=id_, image=image)
            for id_, image in zip(content.ids, images, strict=True)
        )
    else:
        items = (
            retrieval_pb2.UpsertItem(id=id_, vector=vector)
            for id_, vector in zip(content.ids, vectors, strict=True)
        )
    return retrieval_pb2.UpsertRequest(
        collection=fields.collection, items=items, fingerprint=_origin(fields, content)
    )


def _vector(vector: NDArray[np.float32]) -> model_pb2.Vector:
    return model_pb2.Vector(values=vector.tolist())


def _origin(fields: Fields, content: Content) -> str:
    return fields.fingerprint if content.vectors else ""


# Replies.


def _outcomes(results: Sequence[Any], expected: int) -> Reply:
    """Of results with `oneof outcome {…; Status error = 2;}`."""
    if len(results) != expected:
        return Reply(MALFORMED_REPLY, f"{len(results)} results for {expected} images or queries")
    for result in results:
        if result.WhichOneof("outcome") == "error":
            return _failed(result.error)
    return Reply(OK)


def _failed(status: status_pb2.Status) -> Reply:
    return Reply(_CODES.get(status.code, str(status.code)), status.message)


def _read_results(message: Any) -> Callable[[bytes, int], Reply]:
    return lambda data, expected: _outcomes(message.FromString(data).results, expected)


def _read_stream(message: Any) -> Callable[[bytes, int], Reply]:
    def one(reply: Any, expected: int) -> Reply:
        outcome = reply.WhichOneof("outcome")
        if outcome == "response":
            return _outcomes(reply.response.results, expected)._replace(id=reply.id)
        if outcome == "error":
            return _failed(reply.error)._replace(id=reply.id)
        return Reply(MALFORMED_REPLY, "a stream's reply without response and error", id=reply.id)

    def read(data: bytes, expected: int) -> Reply:
        reply = message.FromString(data)
        following = tuple(one(answer, expected) for answer in reply.following)
        return one(reply, expected)._replace(following=following)

    return read


def _read_upsert(data: bytes, expected: int) -> Reply:
    results = retrieval_pb2.UpsertResponse.FromString(data).results
    if len(results) != expected:
        return Reply(MALFORMED_REPLY, f"{len(results)} results for {expected} items")
    return next((_failed(result.error) for result in results if result.HasField("error")), Reply(OK))


def _read_any(_: bytes, __: int) -> Reply:
    return Reply(OK)


_CLASSIFICATION, _EMBEDDING = "/fovea.v1.ClassificationService/", "/fovea.v1.EmbeddingService/"
_MODELS, _RETRIEVAL = "/fovea.v1.ModelService/", "/fovea.v1.RetrievalService/"
_read_search = _read_results(retrieval_pb2.SearchResponse)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "classify", _CLASSIFICATION + "Classify", "pictures", False,
            _classify,
            _read_results(classification_pb2.ClassifyResponse),
        ),
        Method(
            "classify-stream", _CLASSIFICATION + "ClassifyStream", "pictures", False,
            lambda fields, content: classification_pb2.ClassifyStreamRequest(
                request=_classify(fields, content), combine_replies=True
            ),
            _read_stream(classification_pb2.ClassifyStreamResponse), streams=True,
        ),
        Method(
            "embed", _EMBEDDING + "Embed", "pictures", False,
            _embed,
            _read_results(embedding_pb2.EmbedResponse),
        ),
        Method(
            "embed-stream", _EMBEDDING + "EmbedStream", "pictures", False,
            lambda fields, content: embedding_pb2.EmbedStreamRequest(
                request=_embed(fields, content), combine_replies=True
            ),
            _read_stream(embedding_pb2.EmbedStreamResponse), streams=True,
        ),
        Method(
            "search", _RETRIEVAL + "Search", "pictures", True,
            _search, _read_search,
        ),
        Method(
            "search-vectors", _RETRIEVAL + "Search", "vectors", True,
            _search, _read_search,
        ),
        Method(
            "upsert", _RETRIEVAL + "Upsert", "pictures", True,
            _upsert, _read_upsert,
        ),
        Method(
            "upsert-vectors", _RETRIEVAL + "Upsert", "vectors", True,
            _upsert, _read_upsert,
        ),
        Method(
            "get", _RETRIEVAL + "Get", "ids", True,
            lambda fields, content: retrieval_pb2.GetRequest(
                collection=fields.collection, ids=content.ids
            ),
            _read_any,
        ),
        Method(
            "delete", _RETRIEVAL + "Delete", "ids", True,
            lambda fields, content: retrieval_pb2.DeleteRequest(
                collection=fields.collection, ids=content.ids
            ),
            _read_any,
        ),
        Method(
            "count", _RETRIEVAL + "Count", "", True,
            lambda fields, _: retrieval_pb2.CountRequest(collection=fields.collection),
            _read_any,
        ),
        Method(
            "get-collection", _RETRIEVAL + "GetCollection", "", True,
            lambda fields, _: retrieval_pb2.GetCollectionRequest(
                collection=fields.collection
            ),
            _read_any,
        ),
        Method(
            "list-collections", _RETRIEVAL + "ListCollections", "", False,
            lambda _, __: retrieval_pb2.ListCollectionsRequest(), _read_any,
        ),
        Method(
            "list-models", _MODELS + "ListModels", "", False,
            lambda _, __: models_pb2.ListModelsRequest(), _read_any,
        ),
        Method(
            "get-model", _MODELS + "GetModel", "", False,
            lambda fields, _: models_pb2.GetModelRequest(
                model=fields.model, version=fields.version
            ),
            _read_any,
        ),
    )
}  # fmt: skip
"""By name. Creating and dropping a collection are missing: nobody does that many times a second."""
