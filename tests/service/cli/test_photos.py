"""What is said of photos without an answer: once, where it isn't the photo's own fault."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fovea import Client, DeadlineExceeded, FoveaError, InvalidImage, NotFound

from service.cli.photos import Failures
from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea

LATE = "the deadline passed before every image's result was there"


@pytest.fixture
def failures(server: ServerProcess) -> Failures:
    return Failures(Client(server.address), None, as_json=False)


def test_what_all_have_in_common_is_said_of_the_first_and_counted(
    failures: Failures, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[FoveaError] = [DeadlineExceeded(LATE), InvalidImage("broken"), InvalidImage("broken")]
    for number, error in enumerate([*errors, *[DeadlineExceeded(LATE)] * 1200]):
        failures.add(f"{number}.jpg", error)
    failures.close()
    assert failures.count == 1203
    assert capsys.readouterr().err.splitlines() == [
        f"0.jpg: {LATE}",
        "1.jpg: broken",
        "2.jpg: broken",
        f"1,200 more photos: {LATE} (--json names each)",
    ]


def test_a_single_failure_is_one_line(failures: Failures, capsys: pytest.CaptureFixture[str]) -> None:
    failures.add("a.jpg", DeadlineExceeded(LATE))
    failures.close()
    assert capsys.readouterr().err == f"a.jpg: {LATE}\n"


def test_for_programs_each_photo_has_its_line(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = Failures(Client(server.address), None, as_json=True)
    for photo in ("a.jpg", "b.jpg"):
        failures.add(photo, DeadlineExceeded(LATE))
    failures.close()
    captured = capsys.readouterr()
    assert [json.loads(line)["photo"] for line in captured.out.splitlines()] == ["a.jpg", "b.jpg"]
    assert captured.err == ""


def test_a_model_that_is_not_there_ends_it(failures: Failures) -> None:
    with pytest.raises(NotFound):
        failures.add("a.jpg", NotFound("no model 'x'"))


@pytest.mark.parametrize("command", [("classify",), ("classify", "--json"), ("embed", "--json")])
@pytest.mark.parametrize("photos", [("red.png", "blue.png"), ("broken.jpg", "red.png", "blue.png")])
def test_a_server_without_a_default_model_is_said_once(
    several: ServerProcess,
    fovea_command: Fovea,
    pictures: Path,
    command: tuple[str, ...],
    photos: tuple[str, ...],
) -> None:
    done = fovea_command(*command, *photos, "--address", several.address)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == (
        "Error: the server has no default model; name one with --model: colors, hues; or start it with "
        "--default-model\n"
    )


def test_with_a_model_its_broken_photo_fails_alone(
    several: ServerProcess, fovea_command: Fovea, pictures: Path
) -> None:
    done = fovea_command(
        "classify", "broken.jpg", "red.png", "--model", "hues", "--top-k", "1", "--address", several.address
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.stdout == "red.png\n  100.0%  red\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("broken.jpg: ")


def test_the_server_says_at_its_start_that_it_has_no_default_model(several: ServerProcess) -> None:
    (warning,) = [line for line in several.logs if line["event"] == "no_default_model"]
    assert warning["level"] == "warning"
    assert warning["models"] == ["colors", "hues"]
    assert "--default-model" in warning["advice"]


def test_with_one_model_or_a_default_there_is_no_warning(server: ServerProcess) -> None:
    assert "no_default_model" not in {line["event"] for line in server.logs}


@pytest.mark.parametrize("command", [("search",), ("embed", "--json")])
def test_a_clip_is_no_photo(fovea_command: Fovea, pictures: Path, command: tuple[str, ...]) -> None:
    (pictures / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    done = fovea_command(*command, "clip.mp4")
    assert done.exit_code == 2
    assert "clip.mp4 is a film clip; expected an image" in done.stderr
    assert "fovea classify clip.mp4" in done.stderr
    assert done.stdout == ""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two models, none of them the default."""
    folder = tmp_path_factory.mktemp("several")
    for name in ("colors", "hues"):
        write_colors(folder / "models", name)
    with ServerProcess(folder / "models", folder / "index") as process:
        yield process
