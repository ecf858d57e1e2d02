"""The thread behind the searches: runs the upkeep of all collections when something was written."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from service.retrieval.stopping import Stop, Stopped
from service.workers import NICENESS

log = structlog.get_logger()
# Writes that follow one another closely are looked after together.
_PAUSE_S = 0.05
# After an error, a full disk say, until the next try.
_RETRY_S = 10.0


class Work(Protocol):
    """What is to be done now and then."""

    def run(self, stopped: Stop) -> None:
        """Do it; raises Stopped where it was called off."""


class Keeper:
    """One thread for an index, at a lower priority than the searches'."""

    def __init__(self, work: Callable[[], Sequence[Work]]) -> None:
        """Start the thread, which looks after all at once.

        Args:
            work: what there is just now: the upkeep of all collections, of dropped ones once.
        """
        self._work = work
        self._wake = threading.Event()
        self._wake.set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-keeper", daemon=True)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether no more work is to be begun."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Something was written."""
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Call off what is under way; whether the thread ended within the time."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self.stopping:
            self._wake.wait()
            self._wake.clear()
            pause_s = _PAUSE_S
            for work in self._work():
                try:
                    work.run(lambda: self.stopping)
                except Stopped:  # dropped meanwhile, or closing
                    continue
                except Exception:  # searches and writes go on without; the next try may do
                    log.exception("index_upkeep_failed")
                    pause_s = _RETRY_S
                    self._wake.set()
            self._stopping.wait(pause_s)
