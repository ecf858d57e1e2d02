"""The demo from end to end: it learns, answers, leaves its figures and picture, and no process behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from service.manifest import read_manifest


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
