"""The client as its users install it: into an environment with nothing else."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.servers import ServerProcess

ROOT = Path(__file__).parents[2]
# typing_extensions is grpcio's; pip, setuptools and its start-up hook are every environment's.
INSTALLED = {"fovea-client", "grpcio", "protobuf", "numpy", "typing_extensions", "pip", "setuptools"}
IMPORTED = {"fovea", "grpc", "google", "numpy", "typing_extensions", "_distutils_hack"}
PROGRAM = """
import importlib.metadata, json, sys
import fovea
import numpy as np

with fovea.Client(sys.argv[1]) as client:
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 255
    result = client.classify(image)

site = [path for path in sys.path if path.endswith("site-packages")]
imported = {
    name.partition(".")[0]
    for name, module in sys.modules.items()
    if any((getattr(module, "__file__", None) or "").startswith(path) for path in site)
}
print(json.dumps({
    "label": result.label,
    "file": fovea.__file__,
    "imported": sorted(imported),
    "installed": sorted(dist.metadata["Name"] for dist in importlib.metadata.distributions()),
}))
"""


def run(*command: str | Path) -> str:
    """Its standard output; fails with both outputs."""
    # What the developer's environment says about Python holds for theirs alone.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "client", folder / "client", ignore=ignored)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "client")
    (built,) = folder.glob("*.whl")
    return built


def test_needs_only_grpcio_protobuf_and_numpy(wheel: Path, server: ServerProcess, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    (tmp_path / "program.py").write_text(PROGRAM)
    seen = json.loads(run(python, "-I", "-W", "error", tmp_path / "program.py", server.address))
    assert seen["label"] == "blue"
    assert seen["file"].startswith(str(tmp_path))
    assert set(seen["installed"]) <= INSTALLED
    assert set(seen["imported"]) <= IMPORTED


def test_the_wheel_is_typed_and_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "fovea/py.typed" in names
    client = ROOT / "client"
    sources = [path for pattern in ("*.py", "*.pyi") for path in (client / "fovea").rglob(pattern)]
    assert {path.relative_to(client).as_posix() for path in sources} <= names
    assert {name.partition("/")[0] for name in names} == {
        "fovea",
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }
