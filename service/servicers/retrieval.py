"""fovea.v1.RetrievalService: proto ↔ plain values."""

from collections.abc import Mapping
from typing import Any

import grpc.aio
import numpy as np
from fovea.v1 import model_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from service.config import Config
from service.errors import InvalidRequest, RequestError, shorten
from service.gallery import Gallery, NewItem, Query, StoredItem
from service.interceptors import deadline_in
from service.model import Model
from service.retrieval.checks import MAX_ID_BYTES
from service.retrieval.index import AttributeValue, CollectionInfo, CollectionSpec, Metric, Neighbor
from service.retrieval.replies import check_reply_size
from service.servicers.messages import check_count, image_source, name_model, status

_DEFAULT_TOP_K = 10
_METRICS = {
    pb.METRIC_UNSPECIFIED: Metric.COSINE,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
    pb.METRIC_L2: Metric.L2,
}
_METRIC_NUMBERS = {metric: number for number, metric in _METRICS.items() if number}
_Context = grpc.aio.ServicerContext[Any, Any]


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Keeps collections of images and finds the nearest."""

    def __init__(self, gallery: Gallery, config: Config) -> None:
        self._gallery, self._config = gallery, config
        self._timeout_s = config.default_timeout_ms / 1000

    def _deadline(self, context: _Context) -> float:
        return deadline_in(context.time_remaining(), self._timeout_s)

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: _Context
    ) -> pb.CreateCollectionResponse:
        """Make an empty collection."""
        deadline = self._deadline(context)
        if request.metric not in _METRICS:
            names = ", ".join(pb.Metric.keys()[1:])
            raise InvalidRequest(f"metric is {request.metric}; expected one of {names}")
        metric = _METRICS[request.metric]
        if request.WhichOneof("origin") == "external":
            external = request.external
            spec = CollectionSpec(request.collection, external.dimension, metric, external.fingerprint)
            info = await self._gallery.create(spec, deadline)
        else:
            info = await self._gallery.create_for_model(
                request.collection, metric, request.model.model, request.model.version, deadline
            )
        return pb.CreateCollectionResponse(collection=self._collection(info))

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: _Context
    ) -> pb.GetCollectionResponse:
        """Describe one."""
        info = await self._gallery.describe(request.collection, self._deadline(context))
        return pb.GetCollectionResponse(collection=self._collection(info))

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: _Context
    ) -> pb.ListCollectionsResponse:
        """Describe all."""
        infos = await self._gallery.list_collections(self._deadline(context))
        return pb.ListCollectionsResponse(collections=[self._collection(info) for info in infos])

    async def DropCollection(
        self, request: pb.DropCollectionRequest, context: _Context
    ) -> pb.DropCollectionResponse:
        """Remove one and all that is in it."""
        await self._gallery.drop(request.collection, self._deadline(context))
        return pb.DropCollectionResponse()

    async def Upsert(self, request: pb.UpsertRequest, context: _Context) -> pb.UpsertResponse:
        """Write items."""
        check_count("items", request.items, self._config)
        errors, model = await self._gallery.upsert(
            request.collection,
            [_new_item(item) for item in request.items],
            request.fingerprint,
            self._deadline(context),
        )
        results = [
            # An id too long to be stored isn't sent back whole.
            pb.UpsertResult(id=item.id[:MAX_ID_BYTES], error=status(error) if error else None)
            for item, error in zip(request.items, errors, strict=True)
        ]
        return pb.UpsertResponse(results=results, model=_model(model))

    async def Delete(self, request: pb.DeleteRequest, context: _Context) -> pb.DeleteResponse:
        """Remove items by id."""
        deadline = self._deadline(context)
        check_count("ids", request.ids, self._config)
        return pb.DeleteResponse(
            deleted=await self._gallery.delete(request.collection, list(request.ids), deadline)
        )

    async def Get(self, request: pb.GetRequest, context: _Context) -> pb.GetResponse:
        """Read items by id."""
        deadline = self._deadline(context)
        check_count("ids", request.ids, self._config)
        items = await self._gallery.get(
            request.collection, list(request.ids), deadline, include_vectors=request.include_vectors
        )
        response = pb.GetResponse(
            items=[
                pb.Item(
                    id=item.id,
                    attributes=_to_proto(item.attributes),
                    vector=model_pb2.Vector(values=item.vector.tolist()) if request.include_vectors else None,
                )
                for item in items
            ]
        )
        check_reply_size(response.ByteSize(), self._config.max_message_bytes, "ask for fewer ids")
        return response

    async def Count(self, request: pb.CountRequest, context: _Context) -> pb.CountResponse:
        """How many items there are."""
        deadline = self._deadline(context)
        return pb.CountResponse(count=await self._gallery.count(request.collection, deadline))

    async def Search(self, request: pb.SearchRequest, context: _Context) -> pb.SearchResponse:
        """Find the nearest."""
        check_count("queries", request.queries, self._config)
        answers, model = await self._gallery.search(
            request.collection,
            [_query(query) for query in request.queries],
            request.top_k or _DEFAULT_TOP_K,
            request.fingerprint,
            self._deadline(context),
        )
        response = pb.SearchResponse(results=[_result(answer) for answer in answers], model=_model(model))
        # Exact: the gallery's own check, before any of this is made, goes by what is stored.
        check_reply_size(
            response.ByteSize(),
            self._config.max_message_bytes,
            "ask for fewer neighbours, or send fewer queries at a time",
        )
        return response

    def _collection(self, info: CollectionInfo) -> pb.Collection:
        return pb.Collection(
            name=info.spec.name,
            dimension=info.spec.dimension,
            metric=_METRIC_NUMBERS[info.spec.metric],
            fingerprint=info.spec.fingerprint,
            count=info.count,
            model=_model(self._gallery.model_of(info.spec)),
        )


def _model(model: Model | None) -> model_pb2.ModelVersion | None:
    if model is None:
        return None
    name_model(model)
    return model_pb2.ModelVersion(name=model.manifest.name, version=model.manifest.version)


def _new_item(item: pb.UpsertItem) -> NewItem:
    try:
        attributes = _from_proto(item.attributes)
    except InvalidRequest as error:  # this item's, not its neighbours'
        return NewItem(item.id, error, {})
    source = image_source(item.image) if item.WhichOneof("source") != "vector" else _vector(item.vector)
    return NewItem(item.id, source, attributes)


def _query(query: pb.SearchQuery) -> Query:
    match query.WhichOneof("query"):
        case "id":
            return StoredItem(query.id)
        case "vector":
            return _vector(query.vector)
        case _:  # one without a query counts as an empty image
            return image_source(query.image)


def _vector(vector: model_pb2.Vector) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.fromiter(vector.values, np.float32, len(vector.values))


def _result(answer: list[Neighbor] | RequestError) -> pb.SearchResult:
    if isinstance(answer, RequestError):
        return pb.SearchResult(error=status(answer))
    neighbors = [
        pb.Neighbor(id=neighbor.id, score=neighbor.score, attributes=_to_proto(neighbor.attributes))
        for neighbor in answer
    ]
    return pb.SearchResult(neighbors=pb.Neighbors(neighbors=neighbors))


def _from_proto(attributes: Mapping[str, pb.AttributeValue]) -> dict[str, AttributeValue]:
    values: dict[str, AttributeValue] = {}
    for name, value in attributes.items():
        kind = value.WhichOneof("kind")
        if kind is None:
            raise InvalidRequest(
                f"attribute {shorten(name)} has no value; expected a string, int, double or bool"
            )
        values[name] = getattr(value, kind)
    return values


def _to_proto(attributes: Mapping[str, AttributeValue]) -> dict[str, pb.AttributeValue]:
    return {name: _attribute(value) for name, value in attributes.items()}


def _attribute(value: AttributeValue) -> pb.AttributeValue:
    match value:
        case bool():  # before int, which a bool also is
            return pb.AttributeValue(bool_value=value)
        case int():
            return pb.AttributeValue(int_value=value)
        case float():
            return pb.AttributeValue(double_value=value)
        case str():
            return pb.AttributeValue(string_value=value)
