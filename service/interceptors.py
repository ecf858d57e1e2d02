"""Around every call: request id, timing, counting, and the one table from errors to gRPC statuses."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog

from service.arrivals import Arrivals
from service.errors import (
    CollectionBusy,
    CollectionExists,
    DeadlineExpired,
    FoveaError,
    IndexUnusable,
    InferenceFailed,
    InvalidRequest,
    NoClasses,
    NotConfigured,
    NotFound,
    Overloaded,
    RequestError,
    SnapshotExists,
    SnapshotUnusable,
    Unavailable,
    VectorMismatch,
)
from service.metrics import Metrics
from service.pipeline import EXPIRED_WITHIN_S

STATUS: dict[type[FoveaError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    CollectionExists: grpc.StatusCode.ALREADY_EXISTS,
    SnapshotExists: grpc.StatusCode.ALREADY_EXISTS,
    SnapshotUnusable: grpc.StatusCode.FAILED_PRECONDITION,
    CollectionBusy: grpc.StatusCode.FAILED_PRECONDITION,
    NotConfigured: grpc.StatusCode.FAILED_PRECONDITION,
    NoClasses: grpc.StatusCode.FAILED_PRECONDITION,
    VectorMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    InferenceFailed: grpc.StatusCode.INTERNAL,
    IndexUnusable: grpc.StatusCode.INTERNAL,
}
REQUEST_ID = "x-request-id"
_INSTRUMENTED = "/fovea.v1."
# Under overload there would be thousands a second of these; fovea_shed_total counts them.
NOT_LOGGED = (Overloaded, DeadlineExpired)
# gRPC sends a status in the trailers, percent-encoded; past 8 KiB of them the caller gets another error.
_MAX_MESSAGE_BYTES = 2000
# Whoever sends a message keeps others from sending theirs, and a deadline may be days away.
_LONGEST_READ_S = 60.0
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# Seeded by the system once: its urandom releases the interpreter lock, which the event loop then waits for.
_random = random.Random()  # noqa: S311 - an id, not a secret

log = structlog.get_logger()
Handler = Callable[[Any, Any], Any]
RefuseEarly = Callable[[str, "grpc.aio.ServicerContext[Any, Any]"], None]


def status_of(error: FoveaError) -> grpc.StatusCode:
    """The gRPC status of an error, by the nearest class in `STATUS`."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def clip(message: str) -> str:
    """A message that fits into a status."""
    content = message.encode(errors="replace")
    if len(content) <= _MAX_MESSAGE_BYTES:
        return message
    return content[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + "…"


def deadline_in(timeout_s: float | None, default_timeout_s: float) -> float:
    """Loop time so many seconds from now; both kinds of loop take theirs from this clock.

    Args:
        timeout_s: the caller's, or None, as gRPC gives it where there is none whatever its stub says.
        default_timeout_s: taken then.
    """
    return time.monotonic() + (default_timeout_s if timeout_s is None else timeout_s)


@dataclass
class Call:
    """The call under way.

    Attributes:
        method: as /package.service/method.
        request_id: the caller's, or made here.
        model: set by the servicer once it is known; a label of the metrics, so never the caller's words.
    """

    method: str
    request_id: str
    model: str = ""


def crash_message(call: Call) -> str:
    """What a caller is told of an error that nobody foresaw."""
    return f"an error of the server's own; its log has it under request id {call.request_id}"


current_call: ContextVar[Call] = ContextVar("current_call")


class RequestInterceptor:
    """Wraps the methods of this contract; health and reflection pass untouched."""

    def __init__(
        self, metrics: Metrics, refuse_early: RefuseEarly, arrivals: Arrivals, default_timeout_s: float
    ) -> None:
        """Make it.

        Args:
            metrics: count and time every call.
            refuse_early: may raise Overloaded before a unary call's body is read.
            arrivals: bounds the bodies of unary calls in memory.
            default_timeout_s: how long a caller without a deadline may take to send its body.
        """
        self._metrics, self._refuse_early = metrics, refuse_early
        self._arrivals, self._default_timeout_s = arrivals, default_timeout_s

    def wrap(
        self, method: str, handler: "grpc.RpcMethodHandler[Any, Any]"
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler that serves a method, for the one that would.

        Args:
            method: as /package.service/method.
            handler: generated code's.
        """
        if not method.startswith(_INSTRUMENTED):
            return handler
        read = _forgiving(handler.request_deserializer)
        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary),
                request_deserializer=lambda data: (len(data), read(data)),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            # As above; the handler writes its replies itself.
            return grpc.stream_stream_rpc_method_handler(
                self._unary(method, handler.unary_stream),
                request_deserializer=lambda data: (len(data), read(data)),
                response_serializer=handler.response_serializer,
            )
        assert handler.stream_stream is not None  # noqa: S101 - the contract has no other kind
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, handler.stream_stream),
            request_deserializer=read,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, behavior: Handler) -> Handler:
        # On the wire a unary call is a stream of one message. Served as such its body isn't read before
        # there is room for it (benchmarks/front_end.py).
        async def handle(_: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            call = _begin(method, context)
            place = request = None
            try:
                self._refuse_early(method, context)
                place = self._arrivals.enter() or await self._arrivals.wait(
                    deadline_in(context.time_remaining(), self._default_timeout_s)
                )
                size_bytes, request = await self._read(context)
                self._arrivals.arrived(place, size_bytes)
                response = await behavior(checked(request), context)
            except BaseException as error:
                request = None
                await self._fail(call, error, context)
                raise  # only what _fail doesn't turn into a status comes here: cancellation
            else:
                self._count(call, grpc.StatusCode.OK)
                return response
            finally:
                if place is not None:
                    self._arrivals.leave(place)
                self._metrics.time_call(method, call.model, time.perf_counter() - started)

        return handle

    async def _read(self, context: "grpc.aio.ServicerContext[Any, Any]") -> tuple[int, Any]:
        """The one message and its size in bytes; EOF counts as 0 bytes."""
        remaining: float | None = context.time_remaining()
        ends = remaining is not None and remaining <= _LONGEST_READ_S  # by the deadline
        # A timeout takes some percent of a small call, whose message mostly came with its headers.
        if ends or getattr(context, "has_message", False):
            message: Any = await context.read()
        else:
            longest_s = self._default_timeout_s if remaining is None else _LONGEST_READ_S
            try:
                async with asyncio.timeout(longest_s):
                    message = await context.read()
            except TimeoutError:
                raise DeadlineExpired(f"the message had not arrived after {longest_s:g} s") from None
        size_and_request: tuple[int, Any] = (0, message) if message is grpc.aio.EOF else message
        return size_and_request

    def _stream(self, method: str, behavior: Handler) -> Handler:
        async def handle(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            call = _begin(method, context)
            try:
                await behavior(requests, context)
            except BaseException as error:
                await self._fail(call, error, context)
                raise
            else:
                self._count(call, grpc.StatusCode.OK)

        return handle

    async def _fail(
        self, call: Call, error: BaseException, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        if isinstance(error, RequestError | IndexUnusable):
            code, message = status_of(error), clip(str(error))
            if isinstance(error, Overloaded):
                # A client whose retry policy covers this status waits that long (gRFC A6).
                push_back = ("grpc-retry-pushback-ms", str(max(1, round(error.retry_after_ms))))
                context.set_trailing_metadata(((REQUEST_ID, call.request_id), push_back))
            if not isinstance(error, NOT_LOGGED):
                log.warning("request_failed", method=call.method, code=code.name, error=message)
        elif isinstance(error, Exception):
            code = grpc.StatusCode.INTERNAL
            message = crash_message(call)
            log.error("request_crashed", method=call.method, exc_info=error)
        else:
            remaining = context.time_remaining()
            expired = remaining is not None and remaining <= EXPIRED_WITHIN_S
            self._count(call, grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED)
            return
        self._count(call, code)
        # Its group may hold it for longer, and its frames would hold the images.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        await context.abort(code, message)

    def _count(self, call: Call, code: grpc.StatusCode) -> None:
        self._metrics.count_call(call.method, call.model, code.name)


@dataclass(frozen=True)
class _Malformed:
    """Stands for a message that isn't one, until somebody can be told."""

    reason: str


def _forgiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    assert deserialize is not None  # noqa: S101 - generated handlers have one

    # gRPC itself would answer UNKNOWN, and log a traceback for each.
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:  # noqa: BLE001 - protobuf's implementations raise different ones
            return _Malformed(str(error) or type(error).__name__)

    return read


def checked(request: Any) -> Any:
    """A message as it was read.

    Raises:
        InvalidRequest: it isn't one, or there was none.
    """
    if isinstance(request, _Malformed):
        raise InvalidRequest(f"the message isn't what the contract says: {request.reason}")
    if request is grpc.aio.EOF:
        raise InvalidRequest("the call has no message; expected one")
    return request


def _begin(method: str, context: "grpc.aio.ServicerContext[Any, Any]") -> Call:
    metadata = dict(context.invocation_metadata() or ())
    given = str(metadata.get(REQUEST_ID, ""))
    call = Call(
        method, given if given and _REQUEST_ID.fullmatch(given) else f"{_random.getrandbits(128):032x}"
    )
    current_call.set(call)
    structlog.contextvars.bind_contextvars(request_id=call.request_id)
    context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
    return call
