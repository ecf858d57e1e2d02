"""What a client's calls have in common, for threads and for asyncio: until it is closed they may begin."""

from collections.abc import Callable
from typing import Any

from fovea._timeout import checked


class Opening:
    """Begins calls until it is closed.

    Args:
        target: what the client connects to.
        timeout: of each request of a call that states none, in seconds; None: no end.
        metadata: of every call.
    """

    def __init__(
        self, target: str, timeout: float | None, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self._target = target
        self._closed = False
        self._timeout = checked(timeout)
        self._metadata = metadata

    def close(self) -> None:
        """Calls that begin from now on are refused."""
        self._closed = True

    def _opened(self, method: Any) -> Callable[..., Any]:
        def begin(*args: Any, **options: Any) -> Any:
            if self._closed:
                raise ValueError(f"the client of {self._target} is closed; make another for more calls")
            return method(*args, **options)

        return begin
