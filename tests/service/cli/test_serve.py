"""fovea serve before it serves: what a person reads on a terminal when it can't."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages import write_colors
from tests.servers import ServerProcess


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server, and the folder of its `models` and `index`."""
    folder = tmp_path_factory.mktemp("first")
    write_colors(folder / "models")
    with ServerProcess(folder / "models", folder / "index") as process:
        yield process, folder


def ended(*options: str | Path) -> str:
    """What a server that can't start writes to its terminal."""
    command = [sys.executable, "-W", "error", "-m", "service", "serve", *map(str, options)]
    terminal, side = pty.openpty()
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        said = b""
        try:
            while some := os.read(terminal, 4096):
                said += some
        except OSError:  # what Linux has for the end: nobody is on the other side any more
            pass
        finally:
            os.close(terminal)
    assert process.returncode == 1
    return said.decode()


def port_of(address: str) -> str:
    return address.rpartition(":")[2].partition("/")[0]


def test_a_second_server_with_the_same_settings_is_told_of_its_ports(
    first: tuple[ServerProcess, Path],
) -> None:
    process, folder = first
    port, metrics_port = port_of(process.address), port_of(process.metrics_url.removeprefix("http://"))
    same = ("--model-repository", folder / "models", "--index-path", folder / "index")
    said = ended(*same, "--port", port, "--metrics-port", metrics_port)
    assert f"in use by the process with pid {process.process.pid}" in said
    assert f"port {port} and metrics_port {metrics_port} are taken, too" in said
    assert "a second server needs an --index-path, a --port and a --metrics-port of its own" in said

    said = ended(*same, "--port", port, "--metrics-port", "0")
    assert f"; port {port} is taken, too" in said
    assert "metrics_port" not in said

    said = ended(*same, "--port", "0", "--metrics-port", "0")
    assert f"in use by the process with pid {process.process.pid}" in said
    assert "taken" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model-repository", "absent"), "no model package there"),
        (("--model-repository", "models", "--default-model", "x"), "expected one of those served: colors"),
        (
            ("--model-repository", "models", "--max-batch-size", "0"),
            "max_batch_size is 0; expected 1 to 1024",
        ),
        (("--model-repository", "models", "--index-path", "index"), "the index is in use by"),
    ],
)
def test_on_a_terminal_no_line_is_for_machines(
    first: tuple[ServerProcess, Path], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(first[1])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    said = ended("--port", "0", "--metrics-port", "0", *options)
    assert words in said
    assert not [line for line in said.splitlines() if line.startswith("{")]
