"""One small run and its package, made once through the command line."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.servers import ServerProcess
from tests.training.noisy import Noisy, make_noisy
from tests.training.pictures import write_class_folders
from training.cli import main

# Seconds on any machine, and enough to tell red from blue.
TINY = (
    *("--arch", "resnet20-cifar", "--input-size", "8", "--resize-size", "10", "--epochs", "8"),
    *("--batch-size", "8", "--workers", "0", "--threads", "1", "--learning-rate", "0.01"),
)


@dataclass(frozen=True)
class Trained:
    """A run on a folder of 3 × 20 pictures, exported.

    Attributes:
        data: the folder of pictures.
        run: the run's folder, named by default.
        fit, export: what the commands said.
        package: <repository>/<name>/<version>, all by default.
    """

    data: Path
    run: Path
    fit: Result
    export: Result
    package: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    work = tmp_path_factory.mktemp("work")
    data = write_class_folders(work / "lights", 20)
    with contextlib.chdir(work):
        fit = CliRunner().invoke(main, ["fit", "--data", "lights", *TINY])
        assert fit.exit_code == 0, fit.output
        export = CliRunner().invoke(main, ["export", "--licence", "CC0-1.0"])
        assert export.exit_code == 0, export.output
    (run,) = (work / "runs").iterdir()
    return Trained(data, run, fit, export, work / "models" / "lights-resnet20-cifar" / "1")


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Noisy:
    """A run that makes mistakes, for tests that leave it as it is."""
    return make_noisy(tmp_path_factory.mktemp("noisy"))


@pytest.fixture(scope="session")
def noisy_server(noisy: Noisy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with its package, likewise."""
    with ServerProcess(noisy.repository, tmp_path_factory.mktemp("index")) as process:
        yield process
