"""How the client for threads makes its calls; `_aio_caller.py` has the same for asyncio.

Stub methods, requests and replies are `Any` here: they fit together by the operation that made them.
"""

from collections.abc import Generator, Iterable
from typing import Any, TypeVar

import grpc

from fovea._batches import Counted
from fovea._checks import at_least_one
from fovea._opening import Opening
from fovea._operations import Operation, StreamOperation
from fovea._stream import stream
from fovea._timeout import checked, milliseconds
from fovea.errors import FoveaError, from_rpc_error

Source = TypeVar("Source")
Result = TypeVar("Result")


class Caller(Opening):
    """Makes calls with the client's timeout and metadata, and raises typed errors."""

    def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """One request."""
        seconds = self._timeout if timeout is None else checked(timeout)
        try:
            return self._opened(method)(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error

    def one(
        self, method: Any, operation: Operation[Source, Result], source: Source, timeout: float | None
    ) -> Result:
        """An operation on one value; raises its error."""
        message = operation.message(source)
        return operation.only(message, self.call(method, operation.request([message]), timeout))

    def many(
        self,
        method: Any,
        operation: Operation[Source, Result],
        sources: Iterable[Source],
        timeout: float | None,
    ) -> list[Result | FoveaError]:
        """An operation on any number of values, one request after the other.

        The first request's error is raised. A later one's stands in the place of each value that
        wasn't answered before it, and no more is sent.
        """
        source = Counted(sources)
        results: list[Result | FoveaError] = []
        answered = False
        for batch in operation.batches(source):
            sent = batch.messages
            try:
                reply = self.call(method, operation.request(sent), timeout) if sent else None
                results += operation.results(batch, reply)
            except FoveaError as error:
                if not answered:
                    raise
                results += operation.failed(batch, error)
                return results + [error] * (source.count_all() - len(results))
            answered = answered or bool(sent)
        return results

    def stream(
        self,
        method: Any,
        operation: StreamOperation[Source, Result],
        sources: Iterable[Source],
        window: int,
        timeout: float | None,
    ) -> Generator[Result | FoveaError, None, None]:
        """An operation on a stream; nothing is sent before the first result is asked for."""
        at_least_one("window", window)
        timeout_ms = milliseconds(self._timeout if timeout is None else timeout)
        return stream(
            self._opened(method), self._metadata, self._target, operation, sources, window, timeout_ms
        )

    def replies(self, method: Any, request: Any, timeout: float | None) -> Generator[Any, None, None]:
        """One request with many replies; leaving the iterator cancels the call."""
        call = self._opened(method)(request, timeout=checked(timeout), metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        finally:
            call.cancel()
