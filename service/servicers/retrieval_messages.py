"""Proto ↔ plain values of the retrieval service: collections, items, queries, neighbours."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from fovea.v1 import model_pb2
from fovea.v1 import retrieval_pb2 as pb

from service.errors import InvalidRequest, RequestError, shorten
from service.gallery.expansion import Expansion
from service.gallery.items import NewItem, Written
from service.gallery.searches import Query, StoredItem
from service.gallery.snapshots import SnapshotFile
from service.model import Model
from service.retrieval.checks import MAX_ID_BYTES
from service.retrieval.index import (
    DEFAULT_RECALL,
    CollectionInfo,
    CollectionSpec,
    GroupBy,
    Item,
    Metric,
    Neighbor,
    SearchOptions,
    Storage,
)
from service.retrieval.schema import MAX_ATTRIBUTES, AttributeType, AttributeValue
from service.servicers.filters import filter_of, value_of
from service.servicers.messages import image_source, name_model, status
from service.servicers.vectors import array_of, vector_of

_METRICS = {
    pb.METRIC_UNSPECIFIED: Metric.COSINE,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
    pb.METRIC_L2: Metric.L2,
}
_METRIC_NUMBERS = {metric: number for number, metric in _METRICS.items() if number}
_STORAGES = {
    pb.STORAGE_UNSPECIFIED: Storage.FLOAT32,
    pb.STORAGE_FLOAT32: Storage.FLOAT32,
    pb.STORAGE_FLOAT16: Storage.FLOAT16,
}
_STORAGE_NUMBERS = {storage: number for number, storage in _STORAGES.items() if number}
_TYPES = {
    pb.ATTRIBUTE_TYPE_STRING: AttributeType.STRING,
    pb.ATTRIBUTE_TYPE_INT: AttributeType.INT,
    pb.ATTRIBUTE_TYPE_FLOAT: AttributeType.FLOAT,
    pb.ATTRIBUTE_TYPE_BOOL: AttributeType.BOOL,
}
_TYPE_NUMBERS = {declared: number for number, declared in _TYPES.items()}
# Of an AttributeValue.
_FIELDS: Mapping[type, str] = {
    str: "string_value",
    int: "int_value",
    float: "double_value",
    bool: "bool_value",
}


def new_spec(request: pb.CreateCollectionRequest) -> CollectionSpec:
    """What the collection is made of; of a model's dimension and fingerprint are missing.

    Raises:
        InvalidRequest: an unknown metric, storage or type.
    """
    if len(request.attributes) > MAX_ATTRIBUTES:  # before any is translated
        raise InvalidRequest(
            f"{len(request.attributes)} attributes are declared; expected at most {MAX_ATTRIBUTES}"
        )
    return CollectionSpec(
        request.collection,
        request.external.dimension,
        _METRICS[_known("metric", request.metric, _METRICS, pb.Metric)],
        request.external.fingerprint,
        {
            name: _TYPES[_known(f"the type of attribute {shorten(name)}", number, _TYPES, pb.AttributeType)]
            for name, number in request.attributes.items()
        },
        _STORAGES[_known("storage", request.storage, _STORAGES, pb.Storage)],
    )


def _known(what: str, number: Any, known: Mapping[Any, object], enum: Any) -> Any:
    if number not in known:
        raise InvalidRequest(f"{what} is {number}; expected one of {', '.join(enum.keys()[1:])}")
    return number


def collection_message(info: CollectionInfo, model: Model | None) -> pb.Collection:
    """A collection as it stands, and the loaded model that makes its vectors, if there is one."""
    spec = info.spec
    return pb.Collection(
        name=spec.name,
        dimension=spec.dimension,
        metric=_METRIC_NUMBERS[spec.metric],
        fingerprint=spec.fingerprint,
        count=info.count,
        model=model_message(model),
        attributes={name: _TYPE_NUMBERS[declared] for name, declared in spec.attributes.items()},
        storage=_STORAGE_NUMBERS[spec.storage],
        index_type=info.index_type,
    )


def model_message(model: Model | None) -> model_pb2.ModelVersion | None:
    """The model that a reply is of; the call's metrics are its from now on."""
    if model is None:
        return None
    name_model(model)
    return model_pb2.ModelVersion(name=model.manifest.name, version=model.manifest.version)


def new_item(item: pb.UpsertItem) -> NewItem:
    """An item to write; what is wrong with its attributes is its own error."""
    try:
        attributes = {
            name: value_of(value, f"attribute {shorten(name)}") for name, value in item.attributes.items()
        }
    except InvalidRequest as error:  # this item's, not its neighbours'
        return NewItem(item.id, error, {})
    source = image_source(item.image) if item.WhichOneof("source") != "vector" else array_of(item.vector)
    return NewItem(item.id, source, attributes)


def upsert_response(ids: list[str], written: Written) -> pb.UpsertResponse:
    """One result per item."""
    results = [upsert_result(name, error) for name, error in zip(ids, written.errors, strict=True)]
    return pb.UpsertResponse(results=results, model=model_message(written.model))


def upsert_result(name: str, error: RequestError | None) -> pb.UpsertResult:
    """What became of one item."""
    # An id too long to be stored isn't sent back whole.
    return pb.UpsertResult(id=name[:MAX_ID_BYTES], error=status(error) if error else None)


def item_message(item: Item, *, include_vector: bool) -> pb.Item:
    """A stored item."""
    message = pb.Item(id=item.id, vector=vector_of(item.vector) if include_vector else None)
    _write_attributes(message.attributes, item.attributes)
    return message


def query_of(query: pb.SearchQuery) -> Query:
    """What to look for; one without a query counts as an empty image."""
    match query.WhichOneof("query"):
        case "id":
            return StoredItem(query.id)
        case "vector":
            return array_of(query.vector)
        case _:
            return image_source(query.image)


def search_options(request: pb.SearchRequest) -> SearchOptions:
    """Which neighbours are wanted.

    Raises:
        InvalidRequest: the filter is incomplete.
    """
    group_by = request.group_by
    return SearchOptions(
        filter=filter_of(request),
        min_score=request.min_score if request.HasField("min_score") else None,
        group_by=GroupBy(group_by.attribute, group_by.max_per_group or 1)
        if request.HasField("group_by")
        else None,
        offset=request.offset,
        recall=request.recall or DEFAULT_RECALL,
    )


def expansion_of(request: pb.SearchRequest) -> Expansion | None:
    """How queries are expanded, if they are."""
    if not request.HasField("query_expansion"):
        return None
    expansion, default = request.query_expansion, Expansion()
    return Expansion(
        expansion.neighbors or default.neighbors,
        expansion.alpha if expansion.HasField("alpha") else default.alpha,
    )


def write_result(message: pb.SearchResult, answer: list[Neighbor] | RequestError) -> None:
    """Fill in one query's neighbours, or its error.

    In place: messages made apart and put together are copied twice, three times the work in all.
    """
    if isinstance(answer, RequestError):
        message.error.CopyFrom(status(answer))
        return
    message.neighbors.SetInParent()  # there may be none
    add = message.neighbors.neighbors.add
    for neighbor in answer:
        _write_attributes(add(id=neighbor.id, score=neighbor.score).attributes, neighbor.attributes)


def snapshot_message(snapshot: SnapshotFile) -> pb.SnapshotFile:
    """A snapshot that is there."""
    return pb.SnapshotFile(name=snapshot.name, size_bytes=snapshot.size_bytes, created_s=snapshot.created_s)


def _write_attributes(
    messages: MutableMapping[str, pb.AttributeValue], attributes: Mapping[str, AttributeValue]
) -> None:
    for name, value in attributes.items():
        setattr(messages[name], _FIELDS[type(value)], value)
