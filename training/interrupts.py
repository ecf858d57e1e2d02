"""Ctrl-C and SIGTERM, heeded between two steps: what is half done would be lost."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within the block the first signal only sets a flag; a second one acts as if there were no block.

    Args:
        patient: later signals, too, only set the flag. Processes that learn together get the same one several
            times: from who ends them all, from torchrun, which passes it on, and again when one has ended.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self._before: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Interrupts":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
