"""The `fovea` command against the shared server, and folders of pictures for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from tests.client.pictures import BROKEN, file_bytes, of_class
from tests.packages import LABELS
from tests.servers import ServerProcess

Fovea = Callable[..., Result]


@pytest.fixture
def fovea_command(server: ServerProcess) -> Fovea:
    """Runs `fovea` with these arguments; an exception that a person would see as a traceback is raised."""

    def run(*arguments: str | Path, given: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(
            main,
            [str(argument) for argument in arguments],
            input=given,
            env={"FOVEA_ADDRESS": server.address} | environment,
            catch_exceptions=False,
        )

    return run


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: red.png, green.png, blue.png and a broken.jpg."""
    for index, label in enumerate(LABELS):
        (tmp_path / f"{label}.png").write_bytes(file_bytes(of_class(index)))
    (tmp_path / "broken.jpg").write_bytes(BROKEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path
