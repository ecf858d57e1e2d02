"""The benchmark of retrieval quality runs through, on a small model and every engine that is here."""

import os
from pathlib import Path

import pytest

from tests.benchmarks.quick import quick_run
from tests.client.pictures import file_bytes, of_class
from tests.packages import LABELS, write_colors


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and client each need a core")
def test_a_quick_run_goes_through(tmp_path: Path) -> None:
    package = write_colors(tmp_path / "models")
    for index, label in enumerate(LABELS):
        folder = tmp_path / "pictures" / "test" / label
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"{number}.png").write_bytes(file_bytes(of_class(index, 100 + 5 * number)))
    lines = quick_run("retrieval_quality", "--package", package, "--data", tmp_path / "pictures")
    assert "exact search, NumPy: precision@10 1.0000, mAP 1.0000, Recall@1 1.0000" in lines
    assert any(line.startswith("embedded, flat (flat): precision@10 1.0000, mAP 1.0000") for line in lines)
    measured = [line for line in lines if line.startswith("smoke run: ")]
    # Those that need another package say so instead.
    missing = [line for line in lines if ": not measured: " in line]
    assert len(measured) + 2 * len(missing) == 2 * 5
    assert all(line.endswith(" 0.000, not a figure") for line in measured[:4])
