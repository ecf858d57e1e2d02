"""A server in a process of its own on one core, and what it costs there."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_START_TIMEOUT_S = 120.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class PinnedProcess:
    """A child pinned to one core.

    Attributes:
        address: host:port where it listens.
    """

    def __init__(self, process: "subprocess.Popen[str]", address: str, metrics_url: str = "") -> None:
        self._process, self.address, self._metrics_url = process, address, metrics_url

    def cpu_s(self) -> float:
        """Processor time used so far, user and system, in seconds."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Stopped outside of the block: even a server that nobody calls takes 1 to 2% of its core."""
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def resident_bytes(self) -> int:
        """Memory resident now."""
        return self._status("VmRSS")

    def peak_resident_bytes(self) -> int:
        """The most memory that was resident so far."""
        return self._status("VmHWM")

    def buckets(self, histogram: str) -> dict[float, float]:
        """Of a server's histogram without labels: upper bound → observations up to it, ascending."""
        with urllib.request.urlopen(self._metrics_url, timeout=10) as reply:  # noqa: S310 - our own address
            text = reply.read().decode()
        found = re.findall(rf'^{histogram}_bucket{{le="(.+)"}} (.+)$', text, re.MULTILINE)
        return {float(bound): float(count) for bound, count in found}

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024


@contextlib.contextmanager
def pinned_module(module: str, *arguments: str, core: int) -> Iterator[PinnedProcess]:
    """Run `python -m module` on a core; its first line on stdout is its address."""
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    with _ended(process):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"{module} {' '.join(arguments)} ended before it listened")
        yield PinnedProcess(process, address)


@contextlib.contextmanager
def pinned_server(
    repository: Path, *options: str, core: int | str, start_timeout_s: float = _START_TIMEOUT_S
) -> Iterator[PinnedProcess]:
    """`fovea serve` on free ports, ready to answer.

    Args:
        repository: of models.
        options: further ones of `fovea serve`.
        core: or several, as taskset takes them: "0-15".
        start_timeout_s: until it is ready; a GPU's engines take minutes to build.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        command = [
            "taskset", "--cpu-list", str(core), sys.executable, "-m", "service", "serve",
            "--port", "0", "--metrics-port", "0", "--lame-duck-s", "0", "--log-format", "json",
            "--model-repository", str(repository), "--index-path", str(Path(folder) / "index"), *options,
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output, text=True)
        with _ended(process):
            yield PinnedProcess(process, *_ready_addresses(process, log, start_timeout_s))


def _ready_addresses(process: "subprocess.Popen[str]", log: Path, start_timeout_s: float) -> tuple[str, str]:
    """Of gRPC, and of the metrics."""
    metrics_url = ""
    deadline = time.monotonic() + start_timeout_s
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            event = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if event.get("event") == "listening":
                metrics_url = str(event["metrics"])
            if event.get("event") == "ready":
                return str(event["address"]), metrics_url
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the server isn't ready; its log:\n{log.read_text()}")


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
