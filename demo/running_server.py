"""`fovea serve` as a process that never outlives the demo."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fovea

START_TIMEOUT_S = 60.0
# How soon its end is noticed while it starts.
_GLANCE_S = 0.5
STOP_TIMEOUT_S = 60.0


class NotStarted(Exception):
    """The server ended or wasn't ready in time; carries the end of its log."""


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        address: host:port of gRPC.
        metrics_url: of its Prometheus metrics.
    """

    address: str
    metrics_url: str


@contextmanager
def running_server(models: Path, default_model: str, index: Path, log: Path) -> Iterator[RunningServer]:
    """Start a server on free loopback ports, wait until its models are warm, and stop it at the end.

    Raises:
        NotStarted: it ended, or wasn't ready in time.
    """
    port, metrics_port = _free_port(), _free_port()
    address = f"127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "service", "serve", "--port", str(port), "--metrics-port", str(metrics_port),
        "--model-repository", str(models), "--default-model", default_model, "--index-path", str(index),
        "--lame-duck-s", "0",
    ]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        with fovea.Client(address) as client:
            _wait(process, client, log)
        yield RunningServer(address, f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", client: fovea.Client, log: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        status = process.poll()
        if status is not None:
            raise NotStarted(f"the server ended with status {status}: {_tail(log)}")
        try:
            return client.wait_until_ready(timeout=_GLANCE_S)
        except fovea.DeadlineExceeded as error:
            if time.monotonic() > give_up:
                raise NotStarted(
                    f"the server wasn't ready within {START_TIMEOUT_S:g} s: {_tail(log)}"
                ) from error


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
