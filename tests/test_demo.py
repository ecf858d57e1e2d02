"""The demo from end to end: it learns, answers, leaves its figures and picture, and no process behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fovea import Client
from PIL import Image

from demo import digits, kept, photos
from demo.running_server import NotStarted, running_server
from service.manifest import read_manifest
from tests.client.waiting import eventually
from tests.packages import write_colors


def processes_that_mention(text: str) -> list[str]:
    """The command lines of running processes with `text` in them."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if text in line and int(folder.name) != os.getpid():
            lines.append(line)
    return lines


def labels(package: Path) -> tuple[str, ...]:
    return tuple(read_manifest(package).labels)


@dataclass(frozen=True)
class Told:
    """The demo's folder, and what it said the first and the second time."""

    folder: Path
    first: str
    second: str


def tell(folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "demo", "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert processes_that_mention(str(folder)) == []
    return result.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("told")
    return Told(folder, tell(folder), tell(folder))


def test_the_demo_does_what_the_readme_says(told: Told) -> None:
    summary = json.loads((told.folder / "summary.json").read_text())
    assert summary["accuracy"] >= 0.97
    assert summary["precision_at_5"] >= 0.95
    assert summary["held_out_images"] == 451
    assert summary["indexed_images"] == 1167
    for picture in (summary["contact_sheet"], summary["photo_sheet"]):
        with Image.open(picture) as sheet:
            assert sheet.format == "PNG"
            assert sheet.width > 900
    # What the published weights say of scikit-learn's two photographs.
    assert summary["photos"].keys() == {"china.jpg", "flower.jpg"}
    assert set(summary["photos"].values()) <= set(labels(told.folder / "work/models/efficientnet-lite0/1"))
    assert read_manifest(Path(summary["model_package"])).architecture == "resnet20-cifar"

    for promised in (
        f"{summary['accuracy']:.2%}",
        f"{summary['precision_at_5']:.2%}",
        summary["contact_sheet"],
        summary["photo_sheet"],
    ):
        assert promised in told.second.replace("\n", "")
    assert "/metrics" in told.second


def test_the_second_demo_trains_nothing(told: Told) -> None:
    assert told.first.count("$ fovea-train") == 3
    assert "kept of an earlier demo" not in told.first
    assert "$ fovea-train" not in told.second
    work = told.folder / "work"
    for folder in (work / "run", work / "models/digits/1", work / "models/efficientnet-lite0/1"):
        assert f"kept of an earlier demo: {folder}\n" in told.second
    assert "`make clean-demo` forgets what was trained" in " ".join(told.second.split())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", None),
        ("config.toml", b""),
        ("checkpoints/best.pt", b"cut"),
        ("checkpoints/best.pt", None),
    ],
)
def test_a_run_that_is_not_whole_is_trained_again(
    told: Told, tmp_path: Path, file: str, content: bytes | None
) -> None:
    run = shutil.copytree(told.folder / "work/run", tmp_path / "run")
    assert kept.run_is_whole(run, digits.DATA, digits.ARCHITECTURE)
    assert not kept.run_is_whole(run, digits.DATA, "resnet32-cifar")
    assert not kept.run_is_whole(run, "photos/", digits.ARCHITECTURE)
    (run / file).unlink()
    if content is not None:
        (run / file).write_bytes(content)
    assert not kept.run_is_whole(run, digits.DATA, digits.ARCHITECTURE)


def test_a_package_that_is_not_whole_is_exported_again(tmp_path: Path) -> None:
    package = write_colors(tmp_path)
    assert kept.package_is_whole(package)
    model = (package / "model.onnx").read_bytes()
    (package / "model.onnx").write_bytes(model[:-1])
    assert not kept.package_is_whole(package)
    (package / "model.onnx").unlink()
    assert not kept.package_is_whole(package)
    (package / "model.onnx").write_bytes(model)
    (package / "manifest.json").write_text("{")
    assert not kept.package_is_whole(package)
    assert not kept.package_is_whole(tmp_path / "absent")


def test_photographs_of_ones_own_are_named_and_compared_the_broken_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, color in (("red.jpg", (250, 10, 10)), ("more/blue.png", (10, 10, 250))):
        Image.new("RGB", (60, 40), color).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"not an image")
    write_colors(tmp_path / "models", photos.MODEL)
    paths = photos.photographs(folder)
    server = running_server(tmp_path / "models", photos.MODEL, tmp_path / "index", tmp_path / "log")
    with server as running, Client(running.address) as client:
        seen = photos.look_at(client, paths)
    assert [(each.path.name, each.found.label) for each in seen] == [("blue.png", "blue"), ("red.jpg", "red")]
    assert [[number for number, _ in each.neighbors] for each in seen] == [[1], [0]]
    said = capsys.readouterr().out
    assert "broken.jpg: " in said
    assert "blue.png: of the others red.jpg is most alike, cosine 0." in said
    photos.draw(seen, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 500


def test_a_folder_without_photographs_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "demo", "--output", str(tmp_path / "out"), "--photos", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == f"demo: PHOTOS is {str(tmp_path)!r}, which has no image files\n"
    assert not (tmp_path / "out").exists()


def test_a_server_that_ends_at_once_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.running_server.START_TIMEOUT_S", 1e9)
    (tmp_path / "models").mkdir()
    server = running_server(tmp_path / "models", "none", tmp_path / "index", tmp_path / "log")
    with pytest.raises(NotStarted, match=r"(?s)ended with status 1: .*models"), server:
        pytest.fail("it has no model to serve")


def test_interrupted_it_ends_quietly_and_leaves_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        # A shell's background jobs, and so perhaps these tests, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        assert demo.stdout is not None
        command = next(line for line in demo.stdout if "$ fovea-train" in line)
        assert f"--output '{folder}/work/run'" in command
        assert eventually(
            lambda: any("-m training fit" in line for line in processes_that_mention(str(folder)))
        )
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "demo/__main__.py" not in errors
    assert processes_that_mention(str(folder)) == []
