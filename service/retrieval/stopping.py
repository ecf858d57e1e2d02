"""Long work in the background that can be called off."""

import time
from collections.abc import Callable

Stop = Callable[[], bool]
"""Asked between pieces of work of some milliseconds; true: no more."""


class Stopped(Exception):
    """The work was called off."""


def never() -> bool:
    """A `Stop` that doesn't."""
    return False


def deadline_in(timeout_s: float) -> Stop:
    """One that says so after a time."""
    deadline = time.monotonic() + timeout_s
    return lambda: time.monotonic() >= deadline
