"""fovea index add where the server takes small messages, is killed on the way, or makes vectors anew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fovea import Client, FoveaError

from tests.client.pictures import file_bytes, of_class
from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea


def noise(size: int, seed: int) -> bytes:
    """A picture that no format makes smaller."""
    return file_bytes(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def test_small_messages_and_a_killed_server(tmp_path: Path) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    # Many, so that the command still has far to go when this test sees its first items, however late.
    for number in range(1800):
        (folder / f"{number:04}.png").write_bytes(noise(40, number))
    for number in range(3):
        (folder / f"large-{number}.png").write_bytes(noise(400, number))  # 480 kB: two in a message
    (folder / "larger.png").write_bytes(noise(700, 9))
    write_colors(tmp_path / "models")
    server = (tmp_path / "models", tmp_path / "index", "--max-message-bytes", "1100000")
    command = [sys.executable, "-W", "error", "-m", "service", "index", "add", str(folder), "--address"]
    with ServerProcess(*server) as process:
        add = subprocess.Popen([*command, process.address], env=os.environ, stderr=subprocess.PIPE, text=True)
        with Client(process.address) as client:
            deadline = time.monotonic() + 60
            stored = 0
            while stored < 100 and add.poll() is None and time.monotonic() < deadline:
                try:
                    stored = client.count("default")
                except FoveaError:  # not made yet
                    time.sleep(0.01)
        process.process.send_signal(signal.SIGKILL)
        _, errors = add.communicate(timeout=60)
        assert add.returncode == 1
        assert "stopped; the same command again goes on from here" in errors
        process.wait()
    with ServerProcess(*server) as process, Client(process.address) as client:
        before = client.count("default")
        assert 100 <= before < 1800
        done = subprocess.run(
            [*command, process.address], env=os.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1
        assert f"indexed {1803 - before:,} images of {folder}; {before:,} were there already;" in done.stdout
        lines = done.stderr.splitlines()
        assert lines[-2] == "1 of 1,804 files weren't indexed:"
        assert lines[-1].startswith("larger.png: ")
        assert client.count("default") == 1803


def test_what_add_made_can_be_made_anew(
    fovea_command: Fovea, client: Client, collection: str, image_root: Path
) -> None:
    folder = image_root / "bulk" / "ä b"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number:02}.png").write_bytes(file_bytes(of_class(number, 60 + number)))
    named = ("--collection", collection)
    assert fovea_command("index", "add", folder.parent, *named).exit_code == 0
    made = fovea_command("index", "reembed", *named, "--model", "broken")
    assert made.exit_code == 0, made.output
    assert client.collection(collection).model == "broken"
    again = fovea_command("index", "add", folder.parent, *named)
    assert "20 were there already" in again.stdout
