"""The calls on many images, items or queries, each as a value: its requests, and how its replies read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from fovea._batches import Batch, Limits, Packer
from fovea._images import to_message, unreadable
from fovea.errors import FoveaError, Internal, from_status
from fovea.types import ImageSource
from fovea.v1 import image_pb2

Source = TypeVar("Source")
Result = TypeVar("Result")


class Operation(ABC, Generic[Source, Result]):
    """One call. Requests and replies are messages of its own types, which the subclass knows.

    Attributes:
        limits: what fits into one of its requests.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @abstractmethod
    def message(self, source: Source) -> Message:
        """What is sent for one of the caller's values; raises as `fovea._images.to_message`."""

    @abstractmethod
    def request(self, messages: Sequence[Any]) -> Message:
        """The unary call's request."""

    @abstractmethod
    def read(self, reply: Any) -> list[Result | FoveaError]:
        """The unary reply's results."""

    def told(self, message: Any, result: Result | FoveaError) -> Result | FoveaError:  # noqa: ARG002 - for subclasses
        """The result of one message, as the caller is told it."""
        return result

    def part(self, source: Source) -> Message | FoveaError:
        """Like `message`; a file that can't be sent is that part's own error."""
        try:
            return self.message(source)
        except FoveaError as error:
            return error
        except OSError as error:
            return unreadable(getattr(source, "image", source), error)

    def batches(self, sources: Iterable[Source]) -> Iterator[Batch]:
        """All of them in requests; reads no further than the batch it yields."""
        packer = Packer(self.limits)
        for source in sources:
            yield from packer.add(self.part(source))
        yield from packer.flush()

    def results(self, batch: Batch, reply: Any) -> list[Result | FoveaError]:
        """The results of a batch in its order, its own errors in their places.

        Args:
            batch: what was asked.
            reply: the unary reply; None when nothing was sent.

        Raises:
            Internal: the server gave another number of results.
        """
        answers = iter([] if reply is None else self._answers(batch.messages, reply))
        return [part if isinstance(part, FoveaError) else next(answers) for part in batch.parts]

    def failed(self, batch: Batch, error: FoveaError) -> list[Result | FoveaError]:
        """The results of a batch whose request failed: its own errors stay in their places."""
        return [part if isinstance(part, FoveaError) else error for part in batch.parts]

    def only(self, message: Any, reply: Any) -> Result:
        """The result of a request with one part.

        Raises:
            FoveaError: that part's error.
        """
        (result,) = self._answers([message], reply)
        if isinstance(result, FoveaError):
            raise result
        return result

    def _answers(self, messages: Sequence[Any], reply: Any) -> list[Result | FoveaError]:
        answers = self.read(reply)
        if len(answers) != len(messages):
            raise Internal(f"the server gave {len(answers)} results where {len(messages)} were asked for")
        return [self.told(message, answer) for message, answer in zip(messages, answers, strict=True)]


class StreamOperation(Operation[Source, Result]):
    """A call that has a stream too."""

    @abstractmethod
    def stream_request(self, number: int, messages: Sequence[Any], timeout_ms: int) -> Message:
        """One message of the stream."""

    def stream_results(self, number: int, batch: Batch, reply: Any) -> list[Result | FoveaError]:
        """Like `results`, from one message of the stream; what failed all of it is each image's error."""
        if reply is None:
            return self.results(batch, None)
        if reply.id != number:
            raise Internal(f"the server answered message {reply.id} where {number} was next")
        if reply.HasField("response"):
            return self.results(batch, reply.response)
        status = reply.error
        return self.failed(batch, from_status(status.code, status.message, of_image=False))


class ImageOperation(StreamOperation[ImageSource, Result]):
    """A call on images."""

    def message(self, source: ImageSource) -> image_pb2.Image:
        return to_message(source, self.limits.max_bytes)
