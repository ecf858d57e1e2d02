"""fovea classify, embed and models, as a person or a program reads them."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from service.cli import index, main
from tests.client.pictures import expected_embedding, of_class
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea


def test_classify_prints_each_photos_classes(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("classify", "green.png", "red.png", "--top-k", "2")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [lines[0], lines[3]] == ["green.png", "red.png"]
    assert lines[1] == "  100.0%  green"
    assert lines[4] == "  100.0%  red"
    assert len(lines) == 6
    assert done.stderr == ""


def test_a_broken_photo_fails_alone(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("classify", "red.png", "broken.jpg", "absent.png", "blue.png", "--top-k", "1")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == ["red.png", "  100.0%  red", "blue.png", "  100.0%  blue"]
    broken, absent = done.stderr.splitlines()
    assert broken.startswith("broken.jpg: ")
    assert "the image is broken or cut short" in broken
    assert absent == "absent.png can't be read: No such file or directory"


def test_classify_for_programs(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("classify", "blue.png", "broken.jpg", "--json")
    assert done.exit_code == 1
    blue, broken = map(json.loads, done.stdout.splitlines())
    assert (blue["photo"], blue["model"], blue["version"]) == ("blue.png", "colors", "1")
    assert blue["classes"][0]["label"] == "blue"
    assert blue["classes"][0]["index"] == 2
    assert broken["photo"] == "broken.jpg"
    assert broken["error"]["code"] == "INVALID_ARGUMENT"
    assert done.stderr == ""


def test_a_folder_is_no_photo(fovea_command: Fovea, pictures: Path) -> None:
    (pictures / "album").mkdir()
    done = fovea_command("classify", "red.png", "album")
    assert done.exit_code == 2
    assert "album is a folder; give its files, for instance album/*.jpg" in done.stderr
    assert "fovea index add album" in done.stderr
    assert done.stdout == ""


def test_an_unknown_model_is_said_once(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("classify", "red.png", "blue.png", "--model", "missing")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "missing" in line
    assert "colors" in line


def test_embed_writes_a_numpy_file(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("embed", "red.png", "broken.jpg", "blue.png", "--output", "vectors.npz")
    assert done.exit_code == 1
    assert done.stdout == "vectors.npz: 2 vectors of 24 numbers, by colors version 1\n"
    assert done.stderr.startswith("broken.jpg: ")
    with np.load("vectors.npz") as saved:
        assert list(saved["photos"]) == ["red.png", "blue.png"]
        assert saved["vectors"].dtype == np.float32
        np.testing.assert_allclose(saved["vectors"][1], expected_embedding(of_class(2)), rtol=1e-5)
        assert str(saved["fingerprint"]).endswith(":fp32")
    assert not list(pictures.glob(".*"))


def test_embed_prints_json(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("embed", "red.png", "--json")
    assert done.exit_code == 0
    line = json.loads(done.stdout)
    np.testing.assert_allclose(line["vector"], expected_embedding(of_class(0)), rtol=1e-5)
    assert (line["photo"], line["model"]) == ("red.png", "colors")


def test_embed_says_where_vectors_can_go(fovea_command: Fovea, pictures: Path) -> None:
    for arguments in (("red.png",), ("red.png", "--json", "--output", "v.npz")):
        done = fovea_command("embed", *arguments)
        assert done.exit_code == 2
        assert "either --output vectors.npz or --json" in done.stderr
    done = fovea_command("embed", "red.png", "--output", "v.npy")
    assert done.exit_code == 2
    assert "v.npy is no .npz file" in done.stderr


def test_models_are_a_table(fovea_command: Fovea) -> None:
    done = fovea_command("models")
    assert done.exit_code == 0
    header, *rows = done.stdout.splitlines()
    assert header.split()[:4] == ["MODEL", "VERSION", "DEFAULT", "ARCHITECTURE"]
    (colors,) = [row for row in rows if row.startswith("colors")]
    assert colors.split() == ["colors", "1", "yes", "mean-color", "8×8", "3", "24", "CPU", "fp32"]
    described = [json.loads(line) for line in fovea_command("models", "--json").stdout.splitlines()]
    assert {model["name"]: model["labels"] for model in described}["colors"] == ["red", "green", "blue"]


@pytest.mark.parametrize("command", ["classify red.png", "models", "index add .", "search red.png"])
def test_nobody_there_is_one_line(fovea_command: Fovea, pictures: Path, command: str) -> None:
    done = fovea_command(*command.split(), "--address", "127.0.0.1:1")
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: no Fovea server answers at 127.0.0.1:1; start one with `fovea serve`, or name another with "
        "--address\n"
    )


@pytest.mark.parametrize("timeout", ["nan", "0", "-1", "-inf", "soon"])
def test_what_is_no_time_is_refused(fovea_command: Fovea, timeout: str) -> None:
    done = fovea_command("models", "--timeout-s", timeout)
    assert done.exit_code == 2
    assert "Invalid value for '--timeout-s'" in done.stderr


@pytest.mark.parametrize("timeout", ["inf", "1e12"])
def test_there_may_be_all_the_time_in_the_world(fovea_command: Fovea, timeout: str) -> None:
    assert fovea_command("models", "--timeout-s", timeout).exit_code == 0


def test_an_option_of_several_commands_is_the_same_in_all() -> None:
    seen: dict[str, set[tuple[object, ...]]] = {}
    for command in [*main.commands.values(), *index.index.commands.values()]:
        options = [each for each in command.params if isinstance(each, click.Option)]
        if "address" in [option.name for option in options]:
            for option in options:
                if option.name in ("address", "model", "version"):
                    facts = (option.metavar, option.envvar, option.show_envvar, option.required)
                    seen.setdefault(option.name, set()).add(facts)
    assert seen == {
        "address": {("HOST:PORT", "FOVEA_ADDRESS", True, False)},
        "model": {("NAME", None, False, False)},
        "version": {("VERSION", None, False, False)},
    }


def test_no_command_is_described_half() -> None:
    for group, name in ((main, "fovea"), (index.index, "fovea index")):
        help_text = CliRunner().invoke(group, ["--help"], prog_name=name, terminal_width=80).stdout
        assert "..." not in help_text.partition("Commands:")[2]
        assert help_text.endswith(".\n")


def test_the_command_itself(pictures: Path, server: ServerProcess) -> None:
    """A process of its own, warnings as errors: nothing but the answer, and no model runtime loaded."""
    address = server.address
    command = [
        sys.executable,
        "-W",
        "error",
        "-X",
        "importtime",
        "-m",
        "service",
        "classify",
        "red.png",
        "--top-k",
        "1",
    ]
    done = subprocess.run([*command, "--address", address], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "red.png\n  100.0%  red\n"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "fovea" in imported
    assert not imported & {"onnxruntime", "faiss", "torch", "PIL", "structlog", "prometheus_client"}
    assert "Traceback" not in done.stderr
