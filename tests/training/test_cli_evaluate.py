"""fovea-train evaluate, as its users call it."""

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.servers import ServerProcess
from tests.training.noisy import NAMES, Noisy, write_noisy_folders
from training import cli_evaluate
from training.cli import main
from training.evaluate import data, package


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def refused(*arguments: object) -> str:
    said = command(*arguments)
    assert said.exit_code == 1, said.output
    assert said.exception is None or isinstance(said.exception, SystemExit)
    return said.output


def test_what_help_lists_is_what_there_is() -> None:
    assert cli_evaluate.PRECISIONS == package.PRECISIONS
    assert cli_evaluate.PARTS == data.PARTS


def test_without_a_target_it_is_the_newest_run(noisy: Noisy, tmp_path: Path) -> None:
    with contextlib.chdir(noisy.run.parents[1]):
        said = command("--output", tmp_path / "deep" / "numbers.json", "--device", "cpu")
    assert said.exit_code == 0, said.output
    numbers = json.loads((tmp_path / "deep" / "numbers.json").read_text("utf-8"))
    assert f"accuracy@1 {numbers['metrics']['top1_accuracy']:.2%}" in " ".join(said.output.split())
    assert numbers["target"]["kind"] == "checkpoint"
    assert [one["label"] for one in numbers["per_class"]] == list(NAMES)
    for name in NAMES:
        assert name in said.output


def test_all_kinds_of_target_print_the_same_table(noisy: Noisy, noisy_server: ServerProcess) -> None:
    said = [
        command(noisy.run, "--device", "cpu"),
        command(noisy.package, "--data", noisy.run),
        command("--address", noisy_server.address, "--model", "noisy", "--data", noisy.run),
    ]
    tables = [one.output.split("\n", 1)[1] for one in said]
    assert [one.exit_code for one in said] == [0, 0, 0], said
    assert tables[0] == tables[1] == tables[2]
    assert said[2].output.startswith("server noisy at ")


def test_the_data_that_a_run_learned_from_mean_its_own_test_images(noisy: Noisy) -> None:
    assert f"test of {noisy.run}: 27 images" in command(noisy.run, "--data", noisy.data).output
    warned = "all images are scored; a model that learned from some of them looks better than it is"
    everything = command(noisy.package, "--data", noisy.data).output
    assert "180 images" in everything
    assert warned in everything
    assert warned not in command(noisy.package, "--data", noisy.run).output
    assert "27 images" in command(noisy.package, "--data", noisy.data, "--split", "val").output


def test_ten_crops_give_the_same_everywhere_and_are_said(
    noisy: Noisy, noisy_server: ServerProcess, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers.json"
    said = [
        command(
            noisy.run, "--device", "cpu", "--ten-crop", "--output", numbers, "--report", tmp_path / "page"
        ),
        command(noisy.package, "--data", noisy.run, "--ten-crop"),
        command("--address", noisy_server.address, "--data", noisy.run, "--ten-crop"),
    ]
    assert [one.exit_code for one in said] == [0, 0, 0], said
    tables = [one.output.split("\n", 1)[1].split("\nthe numbers")[0].rstrip() for one in said]
    assert tables[0] == tables[1] == tables[2]
    line = "four corners and the centre, 8 × 8 of the image with its short side at 10, each mirrored too"
    assert line in said[0].output
    assert "ten crops" not in command(noisy.run, "--device", "cpu").output
    assert json.loads(numbers.read_text("utf-8"))["ten_crop"]["resize_short_side"] == 10
    assert line in (tmp_path / "page" / "report.html").read_text("utf-8")


def test_broken_files_are_one_list_and_left_out_only_when_asked(noisy: Noisy, tmp_path: Path) -> None:
    data = write_noisy_folders(tmp_path / "data", 8)
    (data / NAMES[1] / "003.png").write_bytes(b"no image")
    output = refused(noisy.package, "--data", data)
    assert output.startswith(f"Error: 1 broken image file in {data}, all:\n  {NAMES[1]}/003.png: ")
    assert "accuracy@1" not in output
    numbers = tmp_path / "numbers.json"
    said = command(
        *(noisy.package, "--data", data, "--skip-broken", "--output", numbers, "--report", tmp_path / "page")
    )
    assert said.exit_code == 0, said.output
    assert f"left out 1 broken image file:\n  {NAMES[1]}/003.png: " in said.output
    assert f"on {data}, all: 23 images\n" in said.output
    document = json.loads(numbers.read_text("utf-8"))
    assert document["data"]["images"] == document["data"]["answered"] == 23
    assert [one["image"] for one in document["left_out"]] == [f"{NAMES[1]}/003.png"]
    assert "left out as broken: 1" in (tmp_path / "page" / "report.html").read_text("utf-8")


def test_a_run_can_be_named_as_for_export(noisy: Noisy) -> None:
    named = command("--run", noisy.run, "--device", "cpu")
    assert named.exit_code == 0, named.output
    assert named.output == command(noisy.run, "--device", "cpu").output
    assert refused(noisy.run, "--run", noisy.package) == (
        f"Error: both TARGET {noisy.run} and --run {noisy.package} are given; expected one of them\n"
    )
    both = refused("--run", noisy.run, "--address", "127.0.0.1:1", "--data", noisy.data)
    assert f"both {noisy.run} and --address are given" in both


def test_the_checkpoint_is_named_once(noisy: Noisy) -> None:
    said = command(noisy.run, "--device", "cpu").output
    assert said.startswith(f"checkpoint best of {noisy.run}\n")


def test_a_report_can_be_had_at_once(noisy: Noisy, tmp_path: Path) -> None:
    said = command(noisy.package, "--data", noisy.run, "--report", tmp_path / "report")
    assert f"the report is {tmp_path}/report/report.html" in said.output
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html", "metrics.json", "predictions.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["RUN", "--model", "a"], "--model is for --address"),
        (["RUN", "--precision", "int8"], "--precision is for a package, not for a run"),
        (["RUN", "--split", "all"], "--split is 'all', which a run doesn't have"),
        (["RUN", "--address", "localhost:1"], "and --address are given; expected one of them"),
        (["PACKAGE"], "--data is needed too"),
        (
            ["PACKAGE", "--checkpoint", "last", "--data", "digits"],
            "--checkpoint is for a run, not for a package",
        ),
        (
            ["PACKAGE", "--precision", "fp16", "--data", "RUN"],
            "no fp16 that can be evaluated here; expected fp32",
        ),
        (["PACKAGE", "--data", "digits"], "the model has no class '0', '1'"),
        (["EMPTY"], "has neither config.toml nor manifest.json"),
        (["--address", "127.0.0.1:1"], "--address needs --data too"),
        (["--address", "127.0.0.1:1", "--data", "digits"], "the server at 127.0.0.1:1: UNAVAILABLE"),
        (["--address", "127.0.0.1:1", "--data", "digits", "--checkpoint", "best"], "not for --address"),
        (["RUN", "--output", "EMPTY/file/x.json"], "can't be made"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(
    noisy: Noisy, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    (tmp_path / "file").touch()
    places = {"RUN": str(noisy.run), "PACKAGE": str(noisy.package), "EMPTY": str(tmp_path)}
    arguments = [places.get(one, one.replace("EMPTY", str(tmp_path))) for one in arguments]
    output = refused(*arguments)
    assert complaint in output
    assert output.startswith("Error: ")
    assert output.count("\n") == 1
