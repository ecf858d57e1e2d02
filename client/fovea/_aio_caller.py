# ruff: noqa: ASYNC109 - `timeout` goes to the server as the call's deadline, which asyncio.timeout can't do
"""How the client for asyncio makes its calls; see `_caller.py`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any, TypeVar

import grpc

from fovea._aio_stream import stream
from fovea._checks import at_least_one
from fovea._opening import Opening
from fovea._operations import Operation, StreamOperation
from fovea._timeout import checked, milliseconds
from fovea.errors import FoveaError, from_rpc_error

Source = TypeVar("Source")
Result = TypeVar("Result")


class AsyncCaller(Opening):
    """As `fovea._caller.Caller`; files are read in a thread."""

    async def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """One request."""
        seconds = self._timeout if timeout is None else checked(timeout)
        try:
            return await self._opened(method)(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error

    async def one(
        self, method: Any, operation: Operation[Source, Result], source: Source, timeout: float | None
    ) -> Result:
        """An operation on one value; raises its error."""
        message = await asyncio.to_thread(operation.message, source)
        return operation.only(message, await self.call(method, operation.request([message]), timeout))

    async def many(
        self,
        method: Any,
        operation: Operation[Source, Result],
        sources: Iterable[Source],
        timeout: float | None,
    ) -> list[Result | FoveaError]:
        """An operation on any number of values, one request after the other; errors as in `Caller.many`."""
        listed = list(sources)
        batches = operation.batches(listed)
        results: list[Result | FoveaError] = []
        answered = False
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            sent = batch.messages
            try:
                reply = await self.call(method, operation.request(sent), timeout) if sent else None
                results += operation.results(batch, reply)
            except FoveaError as error:
                if not answered:
                    raise
                results += operation.failed(batch, error)
                return results + [error] * (len(listed) - len(results))
            answered = answered or bool(sent)
        return results

    def stream(
        self,
        method: Any,
        operation: StreamOperation[Source, Result],
        sources: Iterable[Source] | AsyncIterable[Source],
        window: int,
        timeout: float | None,
    ) -> AsyncGenerator[Result | FoveaError, None]:
        """An operation on a stream; nothing is sent before the first result is asked for."""
        at_least_one("window", window)
        timeout_ms = milliseconds(self._timeout if timeout is None else timeout)
        return stream(
            self._opened(method), self._metadata, self._target, operation, sources, window, timeout_ms
        )

    async def replies(self, method: Any, request: Any, timeout: float | None) -> AsyncGenerator[Any, None]:
        """One request with many replies; leaving the iterator cancels the call."""
        call = self._opened(method)(request, timeout=checked(timeout), metadata=self._metadata)
        try:
            async for reply in call:
                yield reply
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._target) from error
        finally:
            call.cancel()
