# ruff: noqa: ASYNC109 - `timeout` goes to the server as the call's deadline, which asyncio.timeout can't do
"""How the client for asyncio makes its calls; see `_caller.py`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any, TypeVar

import grpc

from fovea._aio_stream import Images, stream
from fovea._checks import at_least_one
from fovea._operations import ImageOperation, Operation
from fovea._timeout import Deadline, milliseconds
from fovea.errors import FoveaError, from_rpc_error

Source = TypeVar("Source")
Result = TypeVar("Result")


class AsyncCaller:
    """As `fovea._caller.Caller`; files are read in a thread."""

    def __init__(self, timeout: float | None, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        Deadline(timeout)
        self._timeout = timeout
        self._metadata = metadata

    def deadline(self, timeout: float | None) -> Deadline:
        """The moment at which a call ends that begins now."""
        return Deadline(self._timeout if timeout is None else timeout)

    async def send(self, method: Any, request: Any, deadline: Deadline) -> Any:
        """One request."""
        try:
            return await method(request, timeout=deadline.left_for_call(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """A call of one request."""
        return await self.send(method, request, self.deadline(timeout))

    async def one(
        self, method: Any, operation: Operation[Source, Result], source: Source, timeout: float | None
    ) -> Result:
        """An operation on one value; raises its error."""
        message = await asyncio.to_thread(operation.message, source)
        return operation.only(await self.call(method, operation.request([message]), timeout))

    async def many(
        self,
        method: Any,
        operation: Operation[Source, Result],
        sources: Iterable[Source],
        timeout: float | None,
    ) -> list[Result | FoveaError]:
        """An operation on any number of values, one request after the other."""
        deadline = self.deadline(timeout)
        results: list[Result | FoveaError] = []
        batches = operation.batches(list(sources))
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            sent = batch.messages
            reply = await self.send(method, operation.request(sent), deadline) if sent else None
            results += operation.results(batch, reply)
        return results

    def stream(
        self,
        method: Any,
        operation: ImageOperation[Result],
        images: Images,
        window: int,
        timeout: float | None,
    ) -> AsyncGenerator[Result | FoveaError, None]:
        """An operation on a stream; nothing is sent before the first result is asked for."""
        at_least_one("window", window)
        timeout_ms = milliseconds(self._timeout if timeout is None else timeout)
        return stream(method, self._metadata, operation, images, window, timeout_ms)
