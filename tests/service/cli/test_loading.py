"""The commands while the server is still loading its models."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fovea
import pytest

from tests.packages import write_colors, write_slow
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea


@contextmanager
def started(server: ServerProcess) -> Iterator[str]:
    """The address of one that is still loading; killed at the end."""
    try:
        server.address = server.wait_for("listening")["address"]
        yield server.address
    finally:
        server.kill()


def loading_server(folder: Path, products: int) -> Iterator[ServerProcess]:
    write_slow(folder / "models", products=products)
    server = ServerProcess(folder / "models", folder / "index", "--max-batch-size", "2")
    with started(server):
        yield server


@pytest.fixture
def never_ready(tmp_path: Path) -> Iterator[ServerProcess]:
    """Loads for longer than any test takes."""
    yield from loading_server(tmp_path / "server", 400)


@pytest.fixture
def soon_ready(tmp_path: Path) -> Iterator[ServerProcess]:
    """Loads for some seconds."""
    yield from loading_server(tmp_path / "server", 4)


async def test_what_is_loading_is_said(
    fovea_command: Fovea, never_ready: ServerProcess, pictures: Path
) -> None:
    address = never_ready.address
    listed = fovea_command("models", FOVEA_ADDRESS=address)
    assert (listed.exit_code, listed.stdout) == (0, "loading: slow (version 1)\n")
    described = fovea_command("models", "--json", FOVEA_ADDRESS=address)
    assert json.loads(described.stdout) == {
        "name": "slow", "version": "1", "is_default": True, "state": "loading",
    }  # fmt: skip
    async with fovea.AsyncClient(address) as client:
        assert await client.loading() == [fovea.LoadingModel("slow", "1", True)]
        assert await client.models() == []
    for command in (
        "classify red.png",
        "classify red.png --model slow",
        "embed red.png --json",
        "index add .",
    ):
        done = fovea_command(*command.split(), "--timeout-s", "5", FOVEA_ADDRESS=address)
        assert done.exit_code == 1
        assert done.stderr == (
            "the server is still loading model 'slow'; waiting up to 5 s\n"
            "Error: model 'slow' is still loading after 5 s; wait longer with --timeout-s\n"
        )
    # Of a model that isn't there, and of a collection's size, nothing has to be waited for.
    unknown = fovea_command("classify", "red.png", "--model", "missing", FOVEA_ADDRESS=address)
    assert unknown.exit_code == 1
    assert "no model 'missing'" in unknown.stderr
    assert "still loading" not in fovea_command("index", "list", FOVEA_ADDRESS=address).stderr
    searched = fovea_command("search", "red.png", FOVEA_ADDRESS=address)
    assert searched.exit_code == 1
    assert "index a folder of photos with" in searched.stderr
    assert "still loading" not in searched.stderr


def test_only_a_collections_own_model_is_waited_for(
    fovea_command: Fovea, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.jpg").unlink()
    models, index = tmp_path / "server" / "models", tmp_path / "server" / "index"
    write_colors(models)
    write_slow(models, products=400)
    options = ("--default-model", "colors", "--max-batch-size", "2")
    with started(ServerProcess(models, index, *options)) as address:
        with fovea.Client(address) as client:
            client.wait_until_ready("colors")
        for command in ("index add .", "index add . --model colors", "search red.png"):
            done = fovea_command(*command.split(), FOVEA_ADDRESS=address)
            assert done.exit_code == 0, done.output
            assert "still loading" not in done.stderr
        done = fovea_command(
            "index",
            "add",
            ".",
            "--collection",
            "other",
            "--model",
            "slow",
            "--timeout-s",
            "5",
            FOVEA_ADDRESS=address,
        )
        assert "Error: model 'slow' is still loading after 5 s" in done.stderr
    # The same collection, where its own model isn't there (yet).
    with started(ServerProcess(models, index, "--model", "slow", "--max-batch-size", "2")) as address:
        listed = fovea_command("index", "list", FOVEA_ADDRESS=address).stdout
        assert "  a model that isn't loaded; still loading: slow  " in listed
        for command in ("index add .", "search red.png"):
            done = fovea_command(*command.split(), "--timeout-s", "5", FOVEA_ADDRESS=address)
            assert done.exit_code == 1
            assert "Error: model 'slow' is still loading after 5 s" in done.stderr


def test_a_model_that_is_loading_is_waited_for(
    fovea_command: Fovea, soon_ready: ServerProcess, pictures: Path
) -> None:
    done = fovea_command("classify", "red.png", "--top-k", "1", FOVEA_ADDRESS=soon_ready.address)
    assert done.exit_code == 0, done.output
    assert done.stdout == "red.png\n  100.0%  red\n"
    assert done.stderr == "the server is still loading model 'slow'; waiting up to 30 s\n"
    listed = fovea_command("models", "--json", FOVEA_ADDRESS=soon_ready.address)
    assert json.loads(listed.stdout)["state"] == "ready"
    with fovea.Client(soon_ready.address) as client:
        assert client.loading() == []
