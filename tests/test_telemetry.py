"""Nobody outside is told what is served: ONNX Runtime's telemetry stays off unless somebody asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packages import write_colors

RUN = """
import sys
{first}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("first", ["import service.providers", "import training.runtime"])
def test_a_process_leaves_nothing_to_be_recognised_by(tmp_path: Path, first: str) -> None:
    model = write_colors(tmp_path / "models") / "model.onnx"
    home = tmp_path / "home"
    home.mkdir()
    # Nothing else: where one of many variables says that this is CI, it is off by itself.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    environment = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "ORT_DISABLE_TELEMETRY": ""}
    subprocess.run([sys.executable, "-c", RUN.format(first=first), str(model)], check=True, env=environment)
    assert not list(home.rglob("*"))


@pytest.mark.parametrize("module", ["service", "training.runtime"])
def test_who_wants_it_may_have_it(module: str) -> None:
    run = f"import os, {module}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    told = subprocess.run([sys.executable, "-c", run], check=True, env=environment, capture_output=True)
    assert told.stdout == b"0\n"
