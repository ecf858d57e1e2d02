"""`fovea serve` as a process that never outlives the demo."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fovea

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


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
def running_server(models: Path, index: Path, log: Path) -> Iterator[RunningServer]:
    """Start a server on free loopback ports, wait until its models are warm, and stop it at the end.

    Raises:
        RuntimeError: it didn't start; carries the end of its log.
    """
    port, metrics_port = _free_port(), _free_port()
    address = f"127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "service", "serve", "--port", str(port), "--metrics-port", str(metrics_port),
        "--model-repository", str(models), "--index-path", str(index), "--lame-duck-s", "0",
    ]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        with fovea.Client(address) as client:
            try:
                client.wait_until_ready(timeout=START_TIMEOUT_S)
            except fovea.FoveaError as error:
                raise RuntimeError(f"the server didn't start: {log.read_text()[-2000:]}") from error
        yield RunningServer(address, f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
