"""Client of a Fovea server: classify images, embed them, find similar ones.

`Client` is for threads, `AsyncClient` for asyncio; errors are in `fovea.errors`, also exported here.
"""

from fovea._channel import DEFAULT_TARGET
from fovea.aio import AsyncClient
from fovea.client import Client
from fovea.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FoveaError,
    Internal,
    InvalidArgument,
    InvalidImage,
    NotFound,
    Overloaded,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from fovea.types import (
    AttributeValue,
    Classification,
    ClassScore,
    Collection,
    Embedding,
    ImageSource,
    Item,
    LoadingModel,
    Model,
    Neighbor,
    Preprocessing,
    Priority,
    Query,
    StoredItem,
    UpsertResult,
)

__all__ = [
    "DEFAULT_TARGET",
    "AlreadyExists",
    "AsyncClient",
    "AttributeValue",
    "Cancelled",
    "ClassScore",
    "Classification",
    "Client",
    "Collection",
    "DeadlineExceeded",
    "Embedding",
    "FailedPrecondition",
    "FoveaError",
    "ImageSource",
    "Internal",
    "InvalidArgument",
    "InvalidImage",
    "Item",
    "LoadingModel",
    "Model",
    "Neighbor",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Preprocessing",
    "Priority",
    "Query",
    "ResourceExhausted",
    "StoredItem",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UpsertResult",
]
