"""Many images, items or queries → requests that keep the limits on their number and bytes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from fovea._checks import at_least_one
from fovea.errors import FoveaError

T = TypeVar("T")
# What a request carries besides its parts: names and a fingerprint.
_ENVELOPE_BYTES = 8192
_TAG_BYTES = 16


@dataclass
class Batch:
    """The parts of one request, and the errors of those that can't be sent, in the caller's order."""

    parts: list[Message | FoveaError] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def messages(self) -> list[Message]:
        """Those that are sent."""
        return [part for part in self.parts if isinstance(part, Message)]


@dataclass(frozen=True)
class Limits:
    """What fits into one request.

    Attributes:
        max_parts: images, items or queries.
        max_bytes: of all of them together.
    """

    max_parts: int
    max_bytes: int

    @classmethod
    def of_message(cls, max_parts: int, max_message_bytes: int) -> "Limits":
        """What fits into messages of that size."""
        return cls(max_parts, max_message_bytes - _ENVELOPE_BYTES)

    def at_most(self, parts: int) -> "Limits":
        """The same with smaller batches."""
        return Limits(min(self.max_parts, at_least_one("batch_size", parts)), self.max_bytes)


class Counted(Generic[T]):
    """The caller's values, counted as they are taken."""

    def __init__(self, values: Iterable[T]) -> None:
        self._values = iter(values)
        self._taken = 0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        value = next(self._values)
        self._taken += 1
        return value

    def count_all(self) -> int:
        """How many there are; takes those that are left."""
        for _ in self:
            pass
        return self._taken


class Packer:
    """Fills batches up to the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = Batch()

    def add(self, part: Message | FoveaError) -> Iterator[Batch]:
        """Take one more; yields the batches that are thereby full."""
        size_bytes = part.ByteSize() + _TAG_BYTES if isinstance(part, Message) else 0
        if self._open.size_bytes + size_bytes > self._limits.max_bytes:
            yield from self.flush()
        self._open.parts.append(part)
        self._open.size_bytes += size_bytes
        if len(self._open.parts) >= self._limits.max_parts:
            yield from self.flush()

    def flush(self) -> Iterator[Batch]:
        """Yields what is left, if anything."""
        if self._open.parts:
            full, self._open = self._open, Batch()
            yield full
