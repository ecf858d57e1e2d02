"""fovea index add, killed: what was indexed is not embedded again, and nothing is missed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fovea import Client, NotFound

from service.cli.bulk.indexing import _BATCHES_IN_FLIGHT, _IMAGES_AT_ONCE
from tests.client.pictures import file_bytes, pixels
from tests.servers import ServerProcess

# Many, so that a command still has far to go when a test sees that it has reached its goal, however late.
DISTINCT, COPIES = 1920, 480


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """1,920 pictures, every fourth twice."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(DISTINCT):
        content = file_bytes(pixels((number % 256, number // 256 * 30, 90), 64))
        (folder / f"{number:04}.png").write_bytes(content)
        if number % 4 == 0:
            (folder / f"{number:04}-copy.png").write_bytes(content)
    return folder


def counted(client: Client, collection: str) -> int:
    try:
        return client.count(collection)
    except NotFound:
        return 0


def test_kill_and_start_again(
    server: ServerProcess, client: Client, collection: str, many: Path, embedded: Callable[[], int]
) -> None:
    command = [
        sys.executable, "-W", "error", "-m", "service", "index", "add", str(many), "--collection", collection,
        "--address", server.address,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kills = 0
    for part in (1, 2, 3):
        goal = part * 300
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while counted(client, collection) < goal and process.poll() is None:
                assert time.monotonic() < deadline, "the command got nowhere"
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    there = counted(client, collection)
    assert 900 <= there < DISTINCT + COPIES
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"collection {collection!r} has {DISTINCT + COPIES:,} images" in done.stdout
    assert {item.id for item in client.scan(collection)} == {path.name for path in many.iterdir()}
    # Only of what was on its way may some have been embedded and not written, or written after the look.
    in_flight = _BATCHES_IN_FLIGHT * _IMAGES_AT_ONCE
    assert DISTINCT <= embedded() <= DISTINCT + kills * in_flight


def test_interrupted_it_says_how_far_it_came(
    server: ServerProcess, client: Client, collection: str, many: Path
) -> None:
    command = [
        sys.executable, "-W", "error", "-m", "service", "index", "add", str(many), "--collection", collection,
        "--address", server.address,
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so perhaps these tests, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        while counted(client, collection) < 300 and process.poll() is None:
            assert time.monotonic() < deadline, "the command got nowhere"
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    said = re.search(
        r"stopped; the same command again goes on from here: "
        rf"at least ([\d,]+) of {DISTINCT + COPIES:,} images are in collection '{collection}'\n",
        errors,
    )
    assert said, errors
    # What was on its way may be there, too, and isn't counted.
    there = counted(client, collection)
    assert (
        there - _BATCHES_IN_FLIGHT * _IMAGES_AT_ONCE
        <= int(said[1].replace(",", ""))
        <= there
        < DISTINCT + COPIES
    )
    assert "Traceback" not in errors
