"""The README's Python example, run as printed, and the commands that go with it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import fovea
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from service.cli import main
from tests.servers import ServerProcess

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def folder(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the pictures that the README names; its collections are dropped afterwards."""
    for name, color in (("photo.jpg", (250, 10, 10)), ("beach.jpg", (10, 10, 250))):
        Image.fromarray(np.full((30, 40, 3), color, np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEA_ADDRESS", server.address)
    with fovea.Client() as client:
        before = {collection.name for collection in client.collections()}
        yield tmp_path
        for collection in client.collections():
            if collection.name not in before:
                client.drop_collection(collection.name)


def run_example() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(program.splitlines()) <= 12
    exec(program, {})  # noqa: S102 - our own README


def test_the_python_example_runs_as_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["red", "100.0%"]
    assert len(lines) == 5
    assert lines[3] == "beach is in"
    assert "Neighbor(id='beach'" in lines[4]
    assert "'year': 2024" in lines[4]


def test_the_commands_work_after_the_python_example(folder: Path) -> None:
    run_example()
    for kind in ("beach", "forest"):
        (folder / "photos" / kind).mkdir(parents=True)
        (folder / "photos" / kind / "1.jpg").write_bytes((folder / "photo.jpg").read_bytes())
    commands = re.findall(
        r"^fovea (index add photos/ --collection .*|search photo.jpg --collection .*)$",
        README.read_text(),
        re.MULTILINE,
    )
    assert [command.split()[0] for command in commands] == ["index", "search"]
    for command in commands:
        done = CliRunner().invoke(main, shlex.split(command, comments=True), catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert "beach/1.jpg" in done.stdout
    assert "forest/1.jpg" not in done.stdout


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert len(links) > 5
    headings = {
        "#" + re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README.read_text(), re.MULTILINE)
    }
    for link in links:
        assert link in headings or (README.parent / link).exists(), link
