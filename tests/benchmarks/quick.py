"""A benchmark's smoke run, as a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def quick_run(benchmark: str, *options: str | Path) -> list[str]:
    """The lines that `python -m benchmarks.<benchmark> --quick` prints; it ends well within two minutes."""
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", "--quick", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()
