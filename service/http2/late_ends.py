"""Answered streams whose callers haven't said their end yet."""

import asyncio
from collections.abc import Callable

# An end that is on its way comes sooner.
_PATIENCE_S = 0.25
_MOST = 1024


class LateEnds:
    """Resets, after a while, what has been answered and is still being sent.

    A server may reset such a stream at once (RFC 9113, section 8.1), but then proxies (haproxy 2.6) pass a
    CANCEL on behind the answer, and the caller sees that instead of it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reset: Callable[[int], None]) -> None:
        """Expect nothing yet.

        Args:
            loop: the one that runs.
            reset: tells the peer to stop sending on a stream.
        """
        self._loop, self._reset = loop, reset
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def expect(self, stream_id: int) -> None:
        """Its end is to come; of too many the oldest is reset at once."""
        if len(self._timers) >= _MOST:
            self._give_up(next(iter(self._timers)))
        self._timers[stream_id] = self._loop.call_later(_PATIENCE_S, self._give_up, stream_id)

    def came(self, stream_id: int) -> None:
        """It did, or the stream was reset."""
        if timer := self._timers.pop(stream_id, None):
            timer.cancel()

    def close(self) -> None:
        """Nothing can come any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _give_up(self, stream_id: int) -> None:
        self._timers.pop(stream_id).cancel()
        self._reset(stream_id)
