"""fovea-train where the extra `train` isn't installed."""

import subprocess
import sys

import pytest

HIDE = "import sys\nfor name in sys.argv.pop(1).split(','):\n  sys.modules[name] = None\n"
RUN = "from training.cli import main\nmain(prog_name='fovea-train')"


def without(modules: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE + RUN, modules, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "Train a classifier, or an embedding for retrieval."),
        (["fit", "--help"], "--arch"),
        (["export", "-h"], "--weights"),
        (["probe", "--help"], "--feature-cache"),
    ],
    ids=str,
)
def test_help_needs_nothing(arguments: list[str], shown: str) -> None:
    answer = without("torch,onnx,onnxscript,sklearn", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert shown in answer.stdout


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("torch", ["fit", "--data", "digits"]), ("onnx", ["export"]), ("sklearn", ["fit", "--data", "digits"])],
    ids=str,
)
def test_what_is_missing_is_one_line(module: str, arguments: list[str]) -> None:
    answer = without(module, *arguments)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == (
        f"Error: {module} isn't installed; fovea-train needs the extra 'train': "
        "pip install 'fovea-serving[train]'\n"
    )
