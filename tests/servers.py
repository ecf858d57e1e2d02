"""A real server in a process of its own, as a test's other side."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.packages import write_colors, write_not_finite

_START_TIMEOUT_S = 120.0


class ServerProcess:
    """`fovea serve` on free ports; a context manager that always ends the process.

    Attributes:
        logs: the log lines so far, as objects.
        address: host:port of gRPC.
        metrics_url: http address of /metrics.
    """

    def __init__(
        self, repository: Path, index: Path, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        command = [
            sys.executable, "-W", "error", "-m", "service", "serve", "--port", "0", "--metrics-port", "0",
            "--model-repository", str(repository), "--index-path", str(index), "--log-format", "json",
            "--lame-duck-s", "0", *options,
        ]  # fmt: skip
        self.logs: list[dict[str, Any]] = []
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        # The same everywhere, whatever is installed, and nothing in the user's folders.
        plain = {"FOVEA_EXECUTION_PROVIDER": "cpu", "FOVEA_COMPILE_CACHE": ""}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | plain | (environment or {})
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": "not-json", "line": line}
            self.logs.append(event)
            self._events.put(event)
        self._events.put(None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log line of that kind."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            line = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the server ended before {event!r}: {self.logs}")
            if line["event"] == event:
                return line

    def __enter__(self) -> "ServerProcess":
        try:
            listening = self.wait_for("listening")
            self.address: str = listening["address"]
            self.metrics_url: str = listening["metrics"]
            self.wait_for("ready")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self._close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(timeout=60)
        self._close()

    def _close(self) -> None:
        self._reader.join(timeout=10)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as printed there."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as reply:  # noqa: S310 - our own address
            lines = reply.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


def colors_server(folder: Path, *options: str) -> ServerProcess:
    """One in `folder` with the models `colors` (the default) and `broken`."""
    write_colors(folder / "models")
    write_not_finite(folder / "models")
    return ServerProcess(folder / "models", folder / "index", "--default-model", "colors", *options)
