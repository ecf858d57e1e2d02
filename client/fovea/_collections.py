"""Collections, snapshots and re-embedding: requests and replies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fovea._checks import at_least_one
from fovea._retrieval import read_error
from fovea.errors import FailedPrecondition
from fovea.types import AttributeType, Collection, ReembedProgress, Snapshot, UpsertResult
from fovea.v1 import retrieval_pb2

METRICS = {
    "cosine": retrieval_pb2.METRIC_COSINE,
    "inner_product": retrieval_pb2.METRIC_INNER_PRODUCT,
    "l2": retrieval_pb2.METRIC_L2,
}
STORAGES = {
    "float32": retrieval_pb2.STORAGE_FLOAT32,
    "float16": retrieval_pb2.STORAGE_FLOAT16,
}
TYPES = {
    "string": retrieval_pb2.ATTRIBUTE_TYPE_STRING,
    "int": retrieval_pb2.ATTRIBUTE_TYPE_INT,
    "float": retrieval_pb2.ATTRIBUTE_TYPE_FLOAT,
    "bool": retrieval_pb2.ATTRIBUTE_TYPE_BOOL,
}
_METRIC_NAMES = {value: name for name, value in METRICS.items()}
_STORAGE_NAMES = {value: name for name, value in STORAGES.items()}
_TYPE_NAMES = {value: name for name, value in TYPES.items()}


@dataclass(frozen=True)
class Stated:
    """What a caller states of a collection, as `create_collection` has it; None: nothing."""

    model: str | None
    version: str | None
    metric: str | None
    dimension: int | None
    fingerprint: str | None
    attributes: Mapping[str, AttributeType] | None
    storage: str | None

    def request(self, name: str) -> retrieval_pb2.CreateCollectionRequest:
        """The request that makes the collection.

        Raises:
            ValueError: an unknown metric, storage or type, or both a model and what stands for one.
        """
        metric = "cosine" if self.metric is None else self.metric
        storage = "float32" if self.storage is None else self.storage
        attributes = self.attributes or {}
        if metric not in METRICS:
            raise ValueError(f"metric is {metric!r}; expected one of {', '.join(METRICS)}")
        if storage not in STORAGES:
            raise ValueError(f"storage is {storage!r}; expected one of {', '.join(STORAGES)}")
        for attribute, declared in attributes.items():
            if declared not in TYPES:
                raise ValueError(
                    f"attribute {attribute!r} is declared as {declared!r}; expected one of {', '.join(TYPES)}"
                )
        request = retrieval_pb2.CreateCollectionRequest(
            collection=name,
            metric=METRICS[metric],
            attributes={attribute: TYPES[declared] for attribute, declared in attributes.items()},
            storage=STORAGES[storage],
        )
        if self.dimension is None:
            if self.fingerprint:
                raise ValueError(
                    "fingerprint= needs dimension=; a collection of a model takes the model's own"
                )
            if self.model or self.version:
                request.model.model = self.model or ""
                request.model.version = self.version or ""
            return request
        if self.model or self.version:
            raise ValueError(
                "give either model= (and version=) or dimension=; a model sets its own dimension"
            )
        request.external.dimension = at_least_one("dimension", self.dimension)
        request.external.fingerprint = self.fingerprint or ""
        return request

    def check(self, there: Collection) -> None:
        """See that a collection is as stated; what isn't stated may be anything.

        Raises:
            FailedPrecondition: it isn't; names both.
        """
        of_model = (
            there.model or f"none that the server has loaded (fingerprint {there.fingerprint or 'none'})"
        )
        compared = (
            ("model", self.model, there.model, of_model),
            ("version", self.version, there.version, there.version or of_model),
            ("metric", self.metric, there.metric, there.metric),
            ("dimension", self.dimension, there.dimension, there.dimension),
            ("fingerprint", self.fingerprint, there.fingerprint, there.fingerprint or "none"),
            ("storage", self.storage, there.storage, there.storage),
        )
        for what, stated, found, shown in compared:
            if stated and stated != found:
                raise FailedPrecondition(f"collection {there.name!r} has {what} {shown}, not {stated}")
        for attribute, declared in (self.attributes or {}).items():
            if there.attributes.get(attribute) != declared:
                found = there.attributes.get(attribute, "nothing")
                raise FailedPrecondition(
                    f"collection {there.name!r} declares attribute {attribute!r} as {found}, not as "
                    f"{declared}; a collection's attributes are set when it is made"
                )


def read_collection(collection: retrieval_pb2.Collection) -> Collection:
    """The typed value."""
    return Collection(
        name=collection.name,
        dimension=collection.dimension,
        metric=_METRIC_NAMES.get(collection.metric, "unknown"),
        fingerprint=collection.fingerprint,
        count=collection.count,
        model=collection.model.name,
        version=collection.model.version,
        attributes={
            name: _TYPE_NAMES.get(declared, "unknown")
            for name, declared in sorted(collection.attributes.items())
        },
        storage=_STORAGE_NAMES.get(collection.storage, "unknown"),
        index_type=collection.index_type,
    )


def read_snapshot(snapshot: retrieval_pb2.SnapshotFile) -> Snapshot:
    """The typed value."""
    created = datetime.fromtimestamp(snapshot.created_s, UTC)
    return Snapshot(snapshot.name, snapshot.size_bytes, created)


def reembed_request(
    collection: str, model: str | None, version: str | None, skip_broken: bool
) -> retrieval_pb2.ReembedRequest:
    """The request that makes a collection's vectors anew."""
    request = retrieval_pb2.ReembedRequest(collection=collection, skip_broken=skip_broken)
    request.model.model = model or ""
    request.model.version = version or ""
    return request


def read_progress(reply: retrieval_pb2.ReembedResponse) -> ReembedProgress:
    """The typed value."""
    return ReembedProgress(
        done=reply.done,
        total=reply.total,
        skipped=tuple(UpsertResult(result.id, read_error(result)) for result in reply.skipped),
        collection=read_collection(reply.collection) if reply.HasField("collection") else None,
    )
