"""The README's Python example, run as printed."""

import re
from pathlib import Path

import fovea
import numpy as np
import pytest
from PIL import Image

from tests.servers import ServerProcess

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs_as_printed(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(program.splitlines()) <= 12
    for name, color in (("photo.jpg", (250, 10, 10)), ("beach.jpg", (10, 10, 250))):
        Image.fromarray(np.full((30, 40, 3), color, np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEA_ADDRESS", server.address)
    try:
        exec(program, {})  # noqa: S102 - our own README
    finally:
        with fovea.Client() as client:
            client.drop_collection("holidays")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["red", "100.0%"]
    assert len(lines) == 5
    assert lines[3] == "beach is in"
    assert "Neighbor(id='beach'" in lines[4]
    assert "'year': 2024" in lines[4]


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README.read_text())
    assert len(links) > 5
    headings = {
        "#" + re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README.read_text(), re.MULTILINE)
    }
    for link in links:
        assert link in headings or (README.parent / link).exists(), link
