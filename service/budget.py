"""A shared amount of something scarce, such as memory, that threads wait for in turn."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """At most `total` is held at a time; who asks first is served first."""

    def __init__(self, total: int) -> None:
        """Make a budget of `total`, in any unit. Raises ValueError when it is below 1."""
        if total < 1:
            raise ValueError(f"total is {total}; expected at least 1")
        self.total = total
        self._held = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until `amount` fits beside what others hold, and hold it inside the `with` block.

        An amount above the total is held alone. A small amount never overtakes a larger one that
        waits, so every thread gets its turn.

        Raises:
            ValueError: `amount` is negative.
        """
        if amount < 0:
            raise ValueError(f"amount is {amount}; expected at least 0")
        amount = min(amount, self.total)
        self._take(amount)
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                if self._queue:
                    self._changed.notify_all()

    def _take(self, amount: int) -> None:
        with self._changed:
            if not self._queue and self._held + amount <= self.total:
                self._held += amount
                return
            ticket = object()
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._held + amount <= self.total)
                self._held += amount
            finally:  # also when the wait is interrupted, so that nobody waits behind it for ever
                self._queue.remove(ticket)
                self._changed.notify_all()
