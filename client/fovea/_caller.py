"""How the client for threads makes its calls; `_aio_caller.py` has the same for asyncio.

Stub methods, requests and replies are `Any` here: they fit together by the operation that made them.
"""

from collections.abc import Generator, Iterable
from typing import Any, TypeVar

import grpc

from fovea._checks import at_least_one
from fovea._operations import ImageOperation, Operation
from fovea._stream import stream
from fovea._timeout import Deadline, milliseconds
from fovea.errors import FoveaError, from_rpc_error
from fovea.types import ImageSource

Source = TypeVar("Source")
Result = TypeVar("Result")


class Caller:
    """Makes calls with the client's timeout and metadata, and raises typed errors.

    Args:
        timeout: of calls that state none, in seconds; None: no end.
        metadata: of every call.
    """

    def __init__(self, timeout: float | None, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        Deadline(timeout)
        self._timeout = timeout
        self._metadata = metadata

    def deadline(self, timeout: float | None) -> Deadline:
        """The moment at which a call ends that begins now."""
        return Deadline(self._timeout if timeout is None else timeout)

    def send(self, method: Any, request: Any, deadline: Deadline) -> Any:
        """One request."""
        try:
            return method(request, timeout=deadline.left_for_call(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """A call of one request."""
        return self.send(method, request, self.deadline(timeout))

    def one(
        self, method: Any, operation: Operation[Source, Result], source: Source, timeout: float | None
    ) -> Result:
        """An operation on one value; raises its error."""
        return operation.only(self.call(method, operation.request([operation.message(source)]), timeout))

    def many(
        self,
        method: Any,
        operation: Operation[Source, Result],
        sources: Iterable[Source],
        timeout: float | None,
    ) -> list[Result | FoveaError]:
        """An operation on any number of values, one request after the other."""
        deadline = self.deadline(timeout)
        results: list[Result | FoveaError] = []
        for batch in operation.batches(sources):
            sent = batch.messages
            reply = self.send(method, operation.request(sent), deadline) if sent else None
            results += operation.results(batch, reply)
        return results

    def stream(
        self,
        method: Any,
        operation: ImageOperation[Result],
        images: Iterable[ImageSource],
        window: int,
        timeout: float | None,
    ) -> Generator[Result | FoveaError, None, None]:
        """An operation on a stream; nothing is sent before the first result is asked for."""
        at_least_one("window", window)
        timeout_ms = milliseconds(self._timeout if timeout is None else timeout)
        return stream(method, self._metadata, operation, images, window, timeout_ms)
