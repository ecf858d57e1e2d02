"""What a call can raise, by meaning.

FoveaError                       code, message, request_id
├── InvalidArgument              the request can never be answered as it is
│   └── InvalidImage             the bytes or pixels of one image, or a file that can't be read
├── NotFound                     no such model, collection or item; lists what there is
├── AlreadyExists                the collection's name is taken
├── FailedPrecondition           a vector of another model than the collection's, a model without classes
├── ResourceExhausted            over one of gRPC's limits, for instance a message too large
│   └── Overloaded               the server's queue is full; refused before any work was done
├── DeadlineExceeded             the timeout passed, and the work that was left isn't done
├── Cancelled
├── Unavailable                  nobody answers, or the server is loading or draining
├── Unimplemented                the server doesn't know the call
├── Unauthenticated
├── PermissionDenied
└── Internal                     a fault of the server's

A status without a class of its own (ABORTED, DATA_LOSS, …) is a plain FoveaError; `code` names it.
"""

from typing import ClassVar

import grpc


class FoveaError(Exception):
    """What the server, or the way to it, answered instead of a result.

    Attributes:
        code: the gRPC status by name, for instance "NOT_FOUND".
        message: what was wrong, with the offending value and what was expected.
        request_id: names the request in the server's log; empty when the server sent none.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.request_id = request_id

    def __str__(self) -> str:
        trail = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.message}{trail}"


class InvalidArgument(FoveaError):
    """The request can never be answered as it is."""

    default_code = "INVALID_ARGUMENT"


class InvalidImage(InvalidArgument):
    """One image can't be used; its neighbours are answered."""


class NotFound(FoveaError):
    """The request names something that isn't there."""

    default_code = "NOT_FOUND"


class AlreadyExists(FoveaError):
    """The name is taken."""

    default_code = "ALREADY_EXISTS"


class FailedPrecondition(FoveaError):
    """What is there doesn't fit the request: vectors of another model, or a model without classes."""

    default_code = "FAILED_PRECONDITION"


class ResourceExhausted(FoveaError):
    """Over one of gRPC's limits, for instance on the size of a message."""

    default_code = "RESOURCE_EXHAUSTED"


class Overloaded(ResourceExhausted):
    """The server's queue is full; refused before any work was done.

    Attributes:
        retry_after_s: when the server expects to have room, in seconds; None: it didn't say.
    """

    def __init__(
        self, message: str, *, code: str = "", request_id: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(FoveaError):
    """The timeout passed before the answer came."""

    default_code = "DEADLINE_EXCEEDED"


class Cancelled(FoveaError):
    """The call was cancelled."""

    default_code = "CANCELLED"


class Unavailable(FoveaError):
    """Nobody answers at the address, or the server is loading or draining."""

    default_code = "UNAVAILABLE"


class Unimplemented(FoveaError):
    """The server doesn't know the call."""

    default_code = "UNIMPLEMENTED"


class Unauthenticated(FoveaError):
    """The call carries no valid credentials."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(FoveaError):
    """The caller may not do this."""

    default_code = "PERMISSION_DENIED"


class Internal(FoveaError):
    """A fault of the server's."""

    default_code = "INTERNAL"


_BY_CODE: dict[str, type[FoveaError]] = {
    error.default_code: error
    for error in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        ResourceExhausted,
        DeadlineExceeded,
        Cancelled,
        Unavailable,
        Unimplemented,
        Unauthenticated,
        PermissionDenied,
        Internal,
    )
}
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


# How gRPC itself begins where no connection comes about, in its releases.
_NO_CONNECTION = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
)


def from_rpc_error(error: grpc.RpcError, target: str = "") -> FoveaError:
    """The typed error of an RPC that failed as a whole.

    Args:
        error: gRPC's.
        target: what the client connects to.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return FoveaError(str(error))
    code = error.code()
    name = code.name if code is not None else FoveaError.default_code
    message = error.details() or name
    trailing = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    request_id = trailing.get("x-request-id", "")
    if target and not request_id and message.startswith(_NO_CONNECTION):
        reason = message.rpartition(": ")[2].rstrip("]")
        message = f"no server answers at {target} ({reason})"
    push_back = trailing.get("grpc-retry-pushback-ms", "")
    if name == ResourceExhausted.default_code and (request_id or push_back):
        # From the server itself; gRPC's own refusals carry neither.
        retry_after_s = int(push_back) / 1000 if push_back.isdecimal() else None
        return Overloaded(message, request_id=request_id, retry_after_s=retry_after_s)
    return _BY_CODE.get(name, FoveaError)(message, code=name, request_id=request_id)


def from_status(code: int, message: str, *, of_image: bool) -> FoveaError:
    """The typed error of one image, item or query, from its google.rpc.Code.

    Args:
        code: as in the reply.
        message: as in the reply.
        of_image: whether an invalid argument is an invalid image.
    """
    name = _NAMES.get(code, FoveaError.default_code)
    kind = _BY_CODE.get(name, FoveaError)
    if of_image and kind is InvalidArgument:
        kind = InvalidImage
    return kind(message, code=name)
