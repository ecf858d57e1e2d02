"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold; gives up after a time that only a fault needs."""
    give_up = time.monotonic() + 30
    while not holds():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def until(holds: Callable[[], bool]) -> None:
    """Return when it holds; fail where it doesn't come to that."""
    assert eventually(holds), "it didn't come to that"
