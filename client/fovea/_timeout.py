"""How long a call may take, and how long to wait for a server."""

import math
import time

# gRPC works out the moment of the deadline, which overflows somewhere above a century.
MAX_TIMEOUT_S = 10 * 365 * 86_400.0


def checked(timeout: float | None) -> float | None:
    """The timeout as gRPC takes it: seconds, at most ten years; None: no end, as for infinity.

    Raises:
        ValueError: it isn't above 0.
        TypeError: it is no number.
    """
    if timeout is None:
        return None
    try:
        positive = timeout > 0  # nan isn't
    except TypeError:
        raise TypeError(f"timeout is {timeout!r}; expected a number of seconds") from None
    if not positive:
        raise ValueError(f"timeout is {timeout}; expected seconds above 0")
    return None if timeout == math.inf else float(min(timeout, MAX_TIMEOUT_S))


def milliseconds(timeout: float | None) -> int:
    """The timeout as a stream's message carries it; 0 leaves it to the server."""
    seconds = checked(timeout)
    return 0 if seconds is None else max(1, min(round(seconds * 1000), 2**32 - 1))


class Deadline:
    """A moment from now on.

    Args:
        timeout: in seconds; infinity: never.

    Raises:
        ValueError: it isn't above 0.
    """

    def __init__(self, timeout: float) -> None:
        seconds = checked(timeout)
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._at - time.monotonic())
