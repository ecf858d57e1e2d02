"""What the server says about itself before it is put under load, so that mistakes end the run at once."""

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from fovea.v1 import models_pb2, models_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc

from service.cli.bench.wire import open_channel

_TIMEOUT_S = 10.0


class NotServed(Exception):
    """The server isn't there, or hasn't what the run needs; says what to do."""


@dataclass(frozen=True)
class ServedModel:
    """The model that answers.

    Attributes:
        execution_provider: as the service's settings name it: cpu, cuda, …
        fingerprint: of its package and precision.
    """

    name: str
    version: str
    execution_provider: str
    precision: str
    max_batch_size: int
    fingerprint: str


@dataclass(frozen=True)
class ServedCollection:
    """The collection that is searched or written.

    Attributes:
        fingerprint: of what makes its vectors; empty: it takes vectors of any origin, and no images.
    """

    name: str
    dimension: int
    count: int
    fingerprint: str
    has_model: bool


async def ask_for_model(address: str, model: str, version: str) -> ServedModel:
    """The model of that name, or the default.

    Raises:
        NotServed: no server, or it has no such model.
    """
    async with open_channel(address) as channel:
        request = models_pb2.GetModelRequest(model=model, version=version)
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        try:
            reply = await stub.GetModel(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _not_served(address, error) from error
    found = reply.model
    return ServedModel(
        found.name,
        found.version,
        found.execution_provider.removesuffix("ExecutionProvider").lower(),
        found.precision,
        found.max_batch_size,
        found.fingerprint,
    )


async def ask_for_collection(address: str, name: str) -> ServedCollection:
    """The collection of that name.

    Raises:
        NotServed: no server, or it has no such collection.
    """
    async with open_channel(address) as channel:
        request = retrieval_pb2.GetCollectionRequest(collection=name)
        stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        try:
            found = (await stub.GetCollection(request, timeout=_TIMEOUT_S)).collection
        except grpc.aio.AioRpcError as error:
            hint = ""
            if error.code() is grpc.StatusCode.NOT_FOUND:
                hint = f"; make it and fill it with `fovea index add FOLDER --collection {name}`"
            raise _not_served(address, error, hint) from error
    return ServedCollection(
        found.name, found.dimension, found.count, found.fingerprint, found.HasField("model")
    )


def _not_served(address: str, error: grpc.aio.AioRpcError, hint: str = "") -> NotServed:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return NotServed(
            f"no Fovea server is ready at {address} ({error.details()}); start one with `fovea serve`"
        )
    return NotServed(f"{error.details() or error.code().name}{hint}")
