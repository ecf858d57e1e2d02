"""The floor: what the server does to an image, without a server."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from service.cli.bench.floor import Floor
from service.errors import FoveaError
from tests.client.pictures import file_bytes, of_class
from tests.packages import write_colors


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a floor of the colors model is told."""
    folder = tmp_path_factory.mktemp("floor")
    file = folder / "red.png"
    file.write_bytes(file_bytes(of_class(0, size=20)))
    return {
        "package": str(write_colors(folder / "models")), "execution_provider": "cpu", "precision": "fp32",
        "max_batch_size": 4, "threads": 2, "files": [str(file)], "raw": None, "max_total_bytes": 10**6,
    }  # fmt: skip


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("raw", [None, [20, 20], [8, 8]], ids=["files", "raw", "raw of the model's size"])
def test_it_counts_whole_batches(order: dict[str, Any], raw: list[int] | None, overlap: bool) -> None:
    floor = Floor(order | {"raw": raw})
    done = floor.work(0.02, 3, overlap=overlap)
    assert done["images"] == 3 * len(done["batch_s"]) > 0
    assert done["elapsed_s"] == pytest.approx(sum(done["batch_s"]))
    assert done["elapsed_s"] >= 0.02


def test_it_says_what_it_runs(order: dict[str, Any]) -> None:
    floor = Floor(order)
    assert (floor.execution_provider, floor.precision) == ("CPUExecutionProvider", "fp32")
    assert floor.fingerprint.endswith(":fp32")


def test_a_precision_that_is_not_there_is_said(order: dict[str, Any]) -> None:
    with pytest.raises(FoveaError, match="int8"):
        Floor(order | {"precision": "int8"})


def test_an_interrupt_ends_it_without_a_traceback(order: dict[str, Any]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli.bench.floor"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs, and so perhaps these tests, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for line in (order | {"cores": []}, {"seconds": 60, "batch_size": 2, "overlap": True}):
        process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
    assert "fingerprint" in process.stdout.readline()  # it works now
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
