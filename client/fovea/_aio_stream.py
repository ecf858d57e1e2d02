"""The bulk stream of `_stream.py`, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from fovea._batches import Batch, Packer
from fovea._operations import StreamOperation
from fovea._stream import ENDED_EARLY, Mark
from fovea.errors import FoveaError, Unavailable, from_rpc_error

Source = TypeVar("Source")
Result = TypeVar("Result")


class _Feed:
    """The sending side, a task of its own."""

    def __init__(self, call: Any, operation: Any, window: int, timeout_ms: int) -> None:
        self.sent: asyncio.Queue[tuple[int, Batch] | Mark] = asyncio.Queue()
        self.failure: BaseException | None = None
        self._call = call
        self._operation = operation
        self._timeout_ms = timeout_ms
        self._permits = asyncio.Semaphore(window)
        self._closed = False

    async def run(self, sources: Iterable[Any] | AsyncIterable[Any]) -> None:
        batches = _batches(self._operation, sources)
        number = 0
        try:
            while await self._permits.acquire():
                batch = await anext(batches, None)
                if batch is None:
                    break
                messages = batch.messages
                request = self._operation.stream_request(number, messages, self._timeout_ms)
                self.sent.put_nowait((number, batch))
                if messages and not await self._write(request):
                    return
                number += 1
        except BaseException as error:
            if self._closed:  # cancelled by the receiving side, which waits for nothing more
                raise
            # The caller's iterable's own, sys.exit() and a CancelledError too: raised again where it waits.
            self.failure = error
        finally:
            self.sent.put_nowait(Mark.END)
            await batches.aclose()
        if self.failure is None and not self._call.done():
            await self._call.done_writing()

    async def _write(self, request: Message) -> bool:
        try:
            await self._call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False  # the receiving side learns why from the call
        return True

    def call_done(self, _call: object) -> None:
        """Wake the receiving side, which may be waiting for the caller's next image."""
        self.sent.put_nowait(Mark.CALL_DONE)

    def taken(self) -> None:
        """One batch's results are with the caller: another may be sent."""
        self._permits.release()

    def close(self) -> None:
        """The receiving side takes no more; whoever says so cancels `run`."""
        self._closed = True


# What grpc.aio says when a message was being written as the server ended the stream.
_WRITE_AFTER_THE_END = "Internal error from Core"


async def _answers(call: Any) -> AsyncGenerator[Any, None]:
    """One of each message, also where the server has put several in a reply."""
    while (reply := await call.read()) is not grpc.aio.EOF:
        yield reply
        for following in getattr(reply, "following", ()):
            yield following


async def stream(
    method: Any,
    metadata: Any,
    target: str,
    operation: StreamOperation[Source, Result],
    sources: Iterable[Source] | AsyncIterable[Source],
    window: int,
    timeout_ms: int,
) -> AsyncGenerator[Result | FoveaError, None]:
    """As `fovea._stream.stream`; `sources` may be an async iterable too."""
    call = method(metadata=metadata)
    answers = _answers(call)
    feed = _Feed(call, operation, window, timeout_ms)
    sending = asyncio.create_task(feed.run(sources))
    try:
        call.add_done_callback(feed.call_done)
        while (entry := await feed.sent.get()) is not Mark.END:
            if entry is Mark.CALL_DONE:
                await anext(answers, None)  # raises why, if it failed
                raise Unavailable(ENDED_EARLY)
            number, batch = entry
            reply = await anext(answers, None) if batch.messages else None
            if batch.messages and reply is None:
                raise Unavailable(ENDED_EARLY)
            for result in operation.stream_results(number, batch, reply):
                yield result
            feed.taken()
        if feed.failure is not None:
            raise feed.failure
        await anext(answers, None)  # as above
    except grpc.RpcError as error:
        failure = from_rpc_error(error, target)
        if failure.message == _WRITE_AFTER_THE_END:
            failure = Unavailable(ENDED_EARLY)
        raise failure from error
    finally:
        feed.close()
        sending.cancel()
        call.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await answers.aclose()


async def _batches(
    operation: StreamOperation[Source, Result], sources: Iterable[Source] | AsyncIterable[Source]
) -> AsyncGenerator[Batch, None]:
    packer = Packer(operation.limits)
    async with aclosing(each(sources)) as taken:
        async for source in taken:
            # In a thread, since it reads files.
            for batch in packer.add(await asyncio.to_thread(operation.part, source)):
                yield batch
    for batch in packer.flush():
        yield batch


async def each(sources: Iterable[Source] | AsyncIterable[Source]) -> AsyncGenerator[Source, None]:
    """The sources one by one, whichever kind of iterable they are in."""
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield source
    else:
        for source in sources:
            yield source
