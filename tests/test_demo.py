"""The demo from end to end: it learns, answers, leaves its figures and picture, and no process behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from demo.running_server import NotStarted, running_server
from service.manifest import read_manifest
from tests.client.waiting import eventually


def processes_that_mention(text: str) -> list[str]:
    """The command lines of running processes with `text` in them."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in line and int(folder.name) != os.getpid():
            lines.append(line)
    return lines


def test_the_demo_does_what_the_readme_says(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "demo", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert processes_that_mention(str(tmp_path)) == []

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["accuracy"] >= 0.97
    assert summary["precision_at_5"] >= 0.95
    assert summary["held_out_images"] == 451
    assert summary["indexed_images"] == 1167
    with Image.open(summary["contact_sheet"]) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 1000
    assert read_manifest(Path(summary["model_package"])).architecture == "resnet20-cifar"

    for promised in (
        f"{summary['accuracy']:.2%}",
        f"{summary['precision_at_5']:.2%}",
        summary["contact_sheet"],
    ):
        assert promised in result.stdout.replace("\n", "")
    assert "/metrics" in result.stdout


def test_a_server_that_ends_at_once_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.running_server.START_TIMEOUT_S", 1e9)
    (tmp_path / "models").mkdir()
    server = running_server(tmp_path / "models", tmp_path / "index", tmp_path / "log")
    with pytest.raises(NotStarted, match=r"(?s)ended with status 1: .*models"), server:
        pytest.fail("it has no model to serve")


def test_interrupted_it_ends_quietly_and_leaves_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        # A shell's background jobs, and so perhaps these tests, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        assert demo.stdout is not None
        command = next(line for line in demo.stdout if "$ fovea-train" in line)
        assert f"--output '{folder}/work/run'" in command
        assert eventually(
            lambda: any("-m training fit" in line for line in processes_that_mention(str(folder)))
        )
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "demo/__main__.py" not in errors
    assert processes_that_mention(str(folder)) == []
