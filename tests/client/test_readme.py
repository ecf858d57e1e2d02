"""The programs in the client's README, run as printed against a real server."""

import pathlib
import re
from pathlib import Path

import fovea
import pytest
from fovea import Client

from tests.client.pictures import file_bytes, of_class
from tests.servers import ServerProcess

README = Path(__file__).parents[2] / "client" / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the programs run in; the environment says where the server is."""
    monkeypatch.setenv("FOVEA_ADDRESS", server.address)
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("photo.jpg", "a.jpg", "photos/b.jpg")):
        (tmp_path / name).write_bytes(file_bytes(of_class(index), "JPEG"))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no JPEG")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_program(photos: Path, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        exec(PROGRAMS[0])  # noqa: S102 - our own README
        (photos / "a.jpg").write_bytes(b"no JPEG")
        exec(PROGRAMS[0])  # noqa: S102 - again, with an item that can't be written
    finally:
        client.drop_collection("photos")
    printed = capsys.readouterr().out
    assert printed.startswith("red ")
    assert "Neighbor(id='a'" in printed
    assert "'year': 2024" in printed
    assert re.search(r"^a .*expected one of JPEG", printed, re.MULTILINE)


def test_the_stream(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved: list[object] = []
    exec(PROGRAMS[1], {"fovea": fovea, "pathlib": pathlib, "save": saved.append})  # noqa: S102 - as above
    assert len(saved) == 1
    assert "not an image" in capsys.readouterr().out


def test_the_collection(photos: Path, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        exec(PROGRAMS[2], {"fovea": fovea, "pathlib": pathlib})  # noqa: S102 - as above
        exec(PROGRAMS[3], {"fovea": fovea})  # noqa: S102 - as above
    finally:
        client.drop_collection("album")
    broken, neighbor, listed, by_image, by_id = capsys.readouterr().out.splitlines()
    assert broken.startswith("broken.jpg ")
    assert neighbor.startswith("b.jpg ")
    assert listed == "1 ['b.jpg']"
    assert (by_image, by_id) == ("['b.jpg']", "[]")


async def test_the_asyncio_program(photos: Path) -> None:
    body = "\n".join("    " + line for line in PROGRAMS[4].splitlines())
    names: dict[str, object] = {"fovea": fovea}
    exec(f"async def main():\n{body}\n    return result", names)  # noqa: S102 - as above
    assert (await names["main"]()).label == "red"  # type: ignore[operator] # made by the line above
