"""A bulk stream for threads: requests run a bounded number of messages ahead of the results taken."""

import itertools
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from enum import Enum, auto
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from fovea._batches import Batch
from fovea._operations import StreamOperation
from fovea.errors import FoveaError, Unavailable, from_rpc_error

Source = TypeVar("Source")
Result = TypeVar("Result")
ENDED_EARLY = "the server ended the stream before all that was sent was answered"


class Mark(Enum):
    """What the sending side tells the receiving one, among the batches that it sent."""

    END = auto()
    """The caller's images have ended, or failed."""
    CALL_DONE = auto()
    """The call is over, perhaps before its time."""


class _Feed:
    """The sending side. gRPC takes its requests in a thread of its own."""

    def __init__(self, operation: Any, window: int, timeout_ms: int) -> None:
        self.sent: queue.SimpleQueue[tuple[int, Batch] | Mark] = queue.SimpleQueue()
        self.failure: BaseException | None = None
        self._operation = operation
        self._timeout_ms = timeout_ms
        self._permits = threading.Semaphore(window)
        self._closed = False

    def requests(self, batches: Iterator[Batch]) -> Iterator[Message]:
        # Where gRPC itself drops this generator, at a yield, the call is over, and `call_done` says so.
        for number in itertools.count():
            self._permits.acquire()
            if self._closed:
                return
            try:
                batch = next(batches, None)
                if batch is None:
                    break
                messages = batch.messages
                request = self._operation.stream_request(number, messages, self._timeout_ms)
            except BaseException as error:  # noqa: BLE001 - sys.exit() in the caller's iterable, too, is raised again in the caller's thread
                self.failure = error
                break
            self.sent.put((number, batch))
            if messages:
                yield request
        self.sent.put(Mark.END)

    def call_done(self) -> None:
        """Wake the receiving side, which may be waiting for the caller's next image."""
        self.sent.put(Mark.CALL_DONE)

    def taken(self) -> None:
        """One batch's results are with the caller: another may be sent."""
        self._permits.release()

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        self._permits.release()


def _answers(call: Any) -> Iterator[Any]:
    """One of each message, also where the server has put several in a reply."""
    for reply in call:
        yield reply
        yield from getattr(reply, "following", ())


def stream(
    method: Any,
    metadata: Any,
    target: str,
    operation: StreamOperation[Source, Result],
    sources: Iterable[Source],
    window: int,
    timeout_ms: int,
) -> Generator[Result | FoveaError, None, None]:
    """The results in the sources' order.

    Args:
        method: the stub's stream-stream call.
        metadata: of the call.
        target: what the client connects to.
        operation: what is asked.
        sources: read in gRPC's thread, at most `window` batches ahead of the results taken.
        window: batches on the way.
        timeout_ms: of each batch, 0 for the server's default.

    Raises:
        FoveaError: the stream itself failed.
    """
    feed = _Feed(operation, window, timeout_ms)
    call = method(feed.requests(operation.batches(sources)), metadata=metadata)
    answers = _answers(call)
    try:
        if not call.add_callback(feed.call_done):
            feed.call_done()
        while (entry := feed.sent.get()) is not Mark.END:
            if entry is Mark.CALL_DONE:
                next(answers, None)  # raises why, if it failed
                raise Unavailable(ENDED_EARLY)
            number, batch = entry
            reply = next(answers, None) if batch.messages else None
            if batch.messages and reply is None:
                raise Unavailable(ENDED_EARLY)
            yield from operation.stream_results(number, batch, reply)
            feed.taken()
        if feed.failure is not None:
            raise feed.failure
        next(answers, None)  # as above
    except grpc.RpcError as error:
        raise from_rpc_error(error, target) from error
    finally:
        feed.close()
        call.cancel()
