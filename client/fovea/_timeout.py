"""The time that a call has, over all the requests it is split into."""

import time

from fovea.errors import DeadlineExceeded


class Deadline:
    """A moment from now on.

    Args:
        timeout: in seconds; None: never.

    Raises:
        ValueError: it isn't positive.
    """

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is {timeout}; expected seconds above 0")
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds until then, at least 0; None: no end."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def left_for_call(self) -> float | None:
        """Like `left`, for one more request.

        Raises:
            DeadlineExceeded: nothing is left.
        """
        left = self.left()
        if left == 0:
            raise DeadlineExceeded("the timeout passed before the request was sent")
        return left


def milliseconds(timeout: float | None) -> int:
    """The timeout as a stream's message carries it; 0 leaves it to the server."""
    Deadline(timeout)
    return 0 if timeout is None else max(1, min(round(timeout * 1000), 2**32 - 1))
