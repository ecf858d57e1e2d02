"""The door of a model: how much may be in at a time, counted in images and in bytes.

A unary request is let in whole or refused at once, before any work is paid for. A message of a stream
waits for its turn instead. What was let in counts until the request ends: decoding, waiting, running.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from service.errors import DeadlineExpired, InvalidRequest, Overloaded, Unavailable


@dataclass(frozen=True)
class Load:
    """What a request brings, or what there is room for.

    Attributes:
        images: how many.
        size_bytes: of the encoded images or raw pixels.
    """

    images: int
    size_bytes: int

    def __add__(self, other: "Load") -> "Load":
        return Load(self.images + other.images, self.size_bytes + other.size_bytes)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.images - other.images, self.size_bytes - other.size_bytes)

    def fits(self, room: "Load") -> bool:
        """Whether it is no more than `room`, in both."""
        return self.images <= room.images and self.size_bytes <= room.size_bytes

    def half(self) -> "Load":
        """Half of it, rounded down."""
        return Load(self.images // 2, self.size_bytes // 2)

    def __str__(self) -> str:
        return f"{self.images} images and {self.size_bytes:,} bytes"


class Admission:
    """Lets requests in while there is room. All methods belong to one event loop; times are its own."""

    def __init__(
        self, capacity: Load, expected_wait_s: Callable[[int], float], on_depth: Callable[[int], None]
    ) -> None:
        """Open the door.

        Args:
            capacity: what may be in at a time. Streams together get at most half, so that they never
                shut the others out.
            expected_wait_s: how long so many images take, to tell the refused when to come back.
            on_depth: is told how many images are in, after each change.
        """
        self._capacity, self._stream_capacity = capacity, capacity.half()
        self._expected_wait_s, self._on_depth = expected_wait_s, on_depth
        self._held = self._held_by_streams = Load(0, 0)
        self._turns: deque[tuple[Load, asyncio.Future[None]]] = deque()
        self._closed = False

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True

    @contextmanager
    def admit(self, load: Load) -> Iterator[None]:
        """Let a request in until the block ends, or refuse it at once.

        Raises:
            Overloaded: there is no room now.
            InvalidRequest: there could never be.
            Unavailable: the door is closed.
        """
        self._check(load, self._capacity)
        if not load.fits(self._capacity - self._held):
            raise Overloaded(
                f"the queue has room for {self._capacity - self._held}, of {self._capacity}; "
                f"the request has {load}; try again later",
                retry_after_ms=1000 * self._expected_wait_s(self._held.images),
            )
        self._hold(load)
        try:
            yield
        finally:
            self._release(load)

    @asynccontextmanager
    async def admit_stream(self, load: Load, deadline: float) -> AsyncIterator[None]:
        """Let one message of a stream in until the block ends, as soon as there is room, in turn.

        Raises:
            DeadlineExpired: there was no room in time.
            InvalidRequest: there could never be.
            Unavailable: the door is closed.
        """
        self._check(load, self._stream_capacity)
        if self._turns or not self._has_stream_room(load):
            await self._wait_for_turn(load, deadline)
        else:
            self._hold_for_stream(load)
        try:
            yield
        finally:
            self._release_for_stream(load)

    def _check(self, load: Load, capacity: Load) -> None:
        if self._closed:
            raise Unavailable("the server is draining; try another one")
        if not load.fits(capacity):
            raise InvalidRequest(f"the request has {load}; at most {capacity} fit in the queue")

    def _hold(self, load: Load) -> None:
        self._held += load
        self._on_depth(self._held.images)

    def _release(self, load: Load) -> None:
        self._held -= load
        self._on_depth(self._held.images)
        self._give_turns()

    def _hold_for_stream(self, load: Load) -> None:
        self._held_by_streams += load
        self._hold(load)

    def _release_for_stream(self, load: Load) -> None:
        self._held_by_streams -= load
        self._release(load)

    def _has_stream_room(self, load: Load) -> bool:
        return load.fits(self._stream_capacity - self._held_by_streams) and load.fits(
            self._capacity - self._held
        )

    def _give_turns(self) -> None:
        while self._turns and self._has_stream_room(self._turns[0][0]):
            load, turn = self._turns.popleft()
            if not turn.done():
                self._hold_for_stream(load)
                turn.set_result(None)

    async def _wait_for_turn(self, load: Load, deadline: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (load, turn)
        self._turns.append(place)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was given in the same instant
                self._release_for_stream(load)
            else:
                with suppress(ValueError):  # a release in between has already passed over it
                    self._turns.remove(place)
                self._give_turns()
            if isinstance(error, TimeoutError):
                raise DeadlineExpired("the deadline passed while the message waited for room") from None
            raise
