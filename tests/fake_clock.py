"""An event loop whose time passes only when nothing else is left to do: a test of waiting doesn't wait.

The idea is looptime's: where the selector would sleep until the next timer, the clock jumps there instead.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")
_STUCK = 1e6


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("every task waits and no timer is set: the code under test is stuck")
        self.now += max(0.0, timeout)
        if self.now > _STUCK:
            raise AssertionError("the clock ran away")
        return super().select(0)


class FakeClockLoop(asyncio.SelectorEventLoop):
    """Its `time()` starts at 0 and jumps from timer to timer."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # A timer counts as due within this; the jump lands on it up to rounding.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._jumping.now

    def hold_up(self, seconds: float) -> None:
        """Let time pass as if one callback had taken that long: timers in between are late."""
        self._jumping.now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a fake clock, which is `time.monotonic` too."""
    runner = asyncio.Runner(loop_factory=FakeClockLoop)
    with runner, mock.patch("time.monotonic", runner.get_loop().time):
        return runner.run(main)


def hold_up(seconds: float) -> None:
    """Of the running loop: `FakeClockLoop.hold_up`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    loop.hold_up(seconds)
