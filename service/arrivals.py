"""The turnstile in front of the wire: how many bytes of unary calls' messages are in memory at a time.

A message is read whole, however large, before anybody sees it; but of a call that nobody reads from little is
read: the rest stays with its caller, by HTTP/2's flow control. So a call takes its turn
here first, reads then, and counts until it ends. Nobody knows a message's size before it is read:

  fresh   being read for less than `SLOW_AFTER_S`: counts as the largest message there may be
  slow    being read for longer: its caller's network is the limit; counts as the largest seen lately
  held    read: counts as what it is, until the call ends
"""

import asyncio
from collections import deque
from contextlib import suppress

from service.errors import DeadlineExpired, Overloaded

SLOW_AFTER_S = 0.5
# A slow read counts at least as this part of the largest message.
_LEAST_SHARE = 1 / 16
# How fast the largest message seen lately is forgotten: by half in 44 smaller ones.
_FORGET = 1 / 64
_RETRY_AFTER_MS = 250.0
# A timer may come this much early.
_CLOCK_ERROR_S = 0.001


class Arrival:
    """One call's place: from its turn until it ends."""

    __slots__ = ("held_bytes", "since", "state")

    FRESH, SLOW, HELD, GONE = range(4)

    def __init__(self, since: float) -> None:
        self.since, self.state, self.held_bytes = since, Arrival.FRESH, 0


class Arrivals:
    """Lets calls read their messages while there is memory, in turn.

    All methods belong to one event loop. A call does, in this order: `enter`, or `wait` where that gives
    None; read; `arrived`; and `leave` in any case once it has a place.
    """

    def __init__(self, capacity_bytes: int, largest_bytes: int, most_waiting: int) -> None:
        """Open the turnstile.

        Args:
            capacity_bytes: of messages, being read or read, that may be in memory.
            largest_bytes: the largest message that gRPC takes.
            most_waiting: calls that may wait with their message unread.

        Raises:
            ValueError: not even one message fits.
        """
        if not 0 < largest_bytes <= capacity_bytes:
            raise ValueError(
                f"capacity_bytes is {capacity_bytes}; expected at least largest_bytes = {largest_bytes}"
            )
        self._capacity, self._largest, self._most_waiting = capacity_bytes, largest_bytes, most_waiting
        self._lately = float(largest_bytes)
        self._least = largest_bytes * _LEAST_SHARE
        self._fresh: dict[Arrival, None] = {}  # oldest first
        self._slow = 0
        self._held = 0
        self._turns: deque[asyncio.Future[Arrival]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._turns)

    @property
    def counted_bytes(self) -> int:
        """What counts now, as the capacity counts it."""
        return int(self._counted())

    def enter(self) -> Arrival | None:
        """A place, if there is room and nobody waits."""
        if self._turns or not self._has_room():
            return None
        return self._take()

    async def wait(self, deadline: float) -> Arrival:
        """A place, in turn.

        Args:
            deadline: loop time.

        Raises:
            Overloaded: too many wait already.
            DeadlineExpired: the turn didn't come in time.
        """
        if len(self._turns) >= self._most_waiting:
            raise Overloaded(
                f"{self._most_waiting} calls wait for memory for their messages already; try again later",
                _RETRY_AFTER_MS,
            )
        turn: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        self._give_turns()
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came in the same instant
                self.leave(turn.result())
            else:
                with suppress(ValueError):  # a turn that was given has passed over it already
                    self._turns.remove(turn)
            if isinstance(error, TimeoutError):
                raise DeadlineExpired(
                    "the deadline passed before there was room to read the message"
                ) from None
            raise

    def arrived(self, place: Arrival, size_bytes: int) -> None:
        """The message has been read; from now on it counts as what it is."""
        self._forget_reading(place)
        place.state, place.held_bytes = Arrival.HELD, size_bytes
        self._held += size_bytes
        lately = self._lately
        if size_bytes >= lately:
            self._lately = size_bytes
        elif lately > self._least:
            self._lately = max(lately + (size_bytes - lately) * _FORGET, self._least)
        if self._turns:
            self._give_turns()

    def leave(self, place: Arrival) -> None:
        """The call has ended, whether its message was read or not. A second time does nothing."""
        if place.state == Arrival.HELD:
            self._held -= place.held_bytes
        else:
            self._forget_reading(place)
        place.state = Arrival.GONE
        if self._turns:
            self._give_turns()

    def _counted(self) -> float:
        return len(self._fresh) * self._largest + self._slow * self._lately + self._held

    def _has_room(self) -> bool:
        return self._counted() + self._largest <= self._capacity

    def _take(self) -> Arrival:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        place = Arrival(self._loop.time())
        self._fresh[place] = None
        return place

    def _forget_reading(self, place: Arrival) -> None:
        if place.state == Arrival.FRESH:
            del self._fresh[place]
        elif place.state == Arrival.SLOW:
            self._slow -= 1

    def _give_turns(self) -> None:
        """As many as there is room for; looks again when the next read becomes a slow one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        slow_since = loop.time() - SLOW_AFTER_S + _CLOCK_ERROR_S
        while self._fresh and (oldest := next(iter(self._fresh))).since <= slow_since:
            del self._fresh[oldest]
            oldest.state = Arrival.SLOW
            self._slow += 1
        while self._turns and self._has_room():
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(self._take())
        if self._turns and self._fresh:
            self._timer = loop.call_at(next(iter(self._fresh)).since + SLOW_AFTER_S, self._give_turns)
