"""The wheels as users install them: the client with nothing else, then the commands without a server."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.client.pictures import file_bytes, of_class
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
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both distributions' wheels, built from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheels")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    for name in ("client", "service", "training"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "client", folder)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's folder of programs; the client is installed there."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", folder)
    programs = folder / "bin"
    install(programs, wheels["fovea_client"])
    return programs


@pytest.fixture(scope="module")
def seen(environment: Path, server: ServerProcess) -> dict[str, Any]:
    """What the program saw there, before anything else came in."""
    program = environment / "program.py"
    program.write_text(PROGRAM)
    found: dict[str, Any] = json.loads(
        run(environment / "python", "-I", "-W", "error", program, server.address)
    )
    return found


@pytest.fixture(scope="module")
def programs(environment: Path, wheels: dict[str, Path], seen: dict[str, Any]) -> Path:
    """The same environment with the application too, without any extra."""
    install(environment, wheels["fovea_serving"])
    return environment


def install(programs: Path, wheel: Path) -> None:
    run(programs / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)


def test_needs_only_grpcio_protobuf_and_numpy(environment: Path, seen: dict[str, Any]) -> None:
    assert seen["label"] == "blue"
    assert seen["file"].startswith(str(environment.parent))
    assert set(seen["installed"]) <= INSTALLED
    assert set(seen["imported"]) <= IMPORTED


def test_the_commands_ask_a_server_without_the_libraries_of_one(
    programs: Path, server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "green.png").write_bytes(file_bytes(of_class(1)))
    assert run(programs / "fovea", "--version").startswith("fovea, version ")
    classify = (programs / "fovea", "classify", tmp_path / "green.png", "--top-k", "1")
    assert run(*classify, "--address", server.address).splitlines()[1].split() == ["100.0%", "green"]


@pytest.mark.parametrize("options", [(), ("--model-repository", ".", "--port", "0")])
def test_a_server_without_its_libraries_names_what_brings_them(
    programs: Path, options: tuple[str, ...]
) -> None:
    done = subprocess.run([programs / "fovea", "serve", *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the server needs ")
    assert line.endswith("which isn't installed; pip install 'fovea-serving[serve]' brings it")


def test_the_clients_wheel_is_typed_and_whole(wheels: dict[str, Path]) -> None:
    wheel = wheels["fovea_client"]
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "fovea/py.typed" in names
    client = ROOT / "client"
    sources = [path for pattern in ("*.py", "*.pyi") for path in (client / "fovea").rglob(pattern)]
    assert {path.relative_to(client).as_posix() for path in sources} <= names
    assert {name.partition("/")[0] for name in names} == {
        "fovea",
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }


def test_a_checkout_beside_a_script_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "fovea" / "client").mkdir(parents=True)
    script = tmp_path / "first.py"
    script.write_text("import fovea; fovea.Client")
    run(sys.executable, script)


def test_both_wheels_bring_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        content = zipfile.ZipFile(wheel)
        (name,) = [name for name in content.namelist() if name.endswith("licenses/LICENSE")]
        assert content.read(name) == (ROOT / "LICENSE").read_bytes()
