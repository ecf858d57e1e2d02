"""The learning-rate finder, and the sheet of augmentations."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.training.pictures import write_class_folders
from training.augment_sheet import _drawn
from training.cli import main
from training.cli_fit import fit_command
from training.engine import Engine
from training.errors import SettingError
from training.rate_finder import below_the_brink

PICTURES = ("--arch", "resnet20-cifar", "--input-size", "8", "--resize-size", "10")
TINY = (*PICTURES, "--batch-size", "8", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("data") / "lights", 12)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_suggests_a_third_of_where_the_loss_is_lowest(noise: float) -> None:
    rates = [10 ** (-5 + step / 20) for step in range(120)]
    # Level, then falling between 1e-3 and 1e-1, then up; the early noise is steeper than the fall.
    losses = [2.0 - 0.02 * min(max(0, step - 40), 40) + 0.4 * max(0, step - 80) for step in range(120)]
    shaken = [loss + noise * (-1) ** step for step, loss in enumerate(losses)]
    assert below_the_brink(rates, shaken) == pytest.approx(0.1 / 3, rel=0.3)


def test_a_loss_that_never_falls_is_said() -> None:
    with pytest.raises(SettingError, match="the loss fell nowhere"):
        below_the_brink([10.0**-step for step in range(40)], [float(step) for step in range(40)])


def test_suggests_a_rate_and_leaves_a_plot(data: Path, tmp_path: Path) -> None:
    plot = tmp_path / "rate.png"
    result = run("find-lr", "--data", data, *TINY, "--workers", 0, "--steps", 40, "--output", plot)
    assert result.exit_code == 0, result.output
    found = re.search(
        r"the loss was lowest at ([\d.e-]+); the plot is .*\nnext: .*--learning-rate ([\d.e-]+)",
        result.output,
    )
    assert found
    # Three colours are learned at rates of about 0.01 to 1.
    assert 1e-4 < float(found[2]) < 5
    assert float(found[2]) == pytest.approx(float(found[1]) / 3, rel=0.1)
    with Image.open(plot) as image:
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50  # something is drawn


def test_ends_soon_after_the_loss_explodes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def exploding(engine: Engine, *_batch: object) -> None:
        made.append(engine.learning_rate)
        loss = 2.0 - 0.05 * len(made) if len(made) <= 20 else 50.0
        engine.tally.add(torch.tensor(loss), None, torch.zeros(8))

    monkeypatch.setattr(Engine, "_learn", exploding)
    told = ("--lowest", 1e-4, "--highest", 1.0, "--steps", 100, "--output", tmp_path / "rate.png")
    result = run("find-lr", "--data", data, *TINY, "--workers", 0, *told)
    assert result.exit_code == 0, result.output
    assert f"after {len(made)} steps up to {made[-1]:.3g} " in result.output
    assert 20 < len(made) < 25
    assert made == pytest.approx([1e-4 ** (1 - step / 99) for step in range(len(made))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lowest", "1", "--highest", "0.1"],
            "--lowest is 1 and --highest 0.1; expected 0 < lowest < highest",
        ),
        (["--output", "rate.txt"], "--output is rate.txt; expected a name that ends in .png"),
        (["--output", "nowhere/rate.png"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_searched_is_refused(data: Path, arguments: list[str], message: str) -> None:
    result = run("find-lr", "--data", data, *TINY, "--workers", 0, *arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_the_sheet_has_a_row_for_each_augmentation(data: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = run(
        *("augmentations", "--data", data, *PICTURES, "--rotation", 20, "--images", 4),
        *("--no-mirror", "--output", sheet),
    )
    assert result.exit_code == 0, result.output
    with Image.open(sheet) as image:
        # 8 pixels, enlarged 12 times, under a title; the loader's, the run's, and twelve single rows.
        assert image.size == (4 * 100 + 4, 14 * 120 + 4)
        tiles = [image.crop((4, row * 120 + 20, 100, row * 120 + 116)).tobytes() for row in range(14)]
    assert tiles[0] != tiles[1]
    # Rotation is all that this run does, and has a row of its own; the other rows are the usual strengths.
    assert tiles[1] == tiles[3]
    assert len(set(tiles)) >= 12


@pytest.mark.parametrize(("images", "pixels"), [(2, 96), (8, 224)])
def test_a_sheets_titles_are_large_and_whole(images: int, pixels: int) -> None:
    longest = "rand-augment-operations 12, not in this run"
    blank = torch.ones(images, 3, pixels, pixels)
    short, long = (np.asarray(_drawn([(title, blank)]).convert("L")) for title in ("mirror", longest))
    for sheet in (short, long):
        written = np.flatnonzero((sheet < 128).any(axis=0))
        assert 0 < written.max() < sheet.shape[1] - 4
    # Seen whole, a thousand pixels wide, a title is at least as high as usual text.
    assert (short.shape[0] - pixels - 8) * 1000 / short.shape[1] > 24


@pytest.mark.parametrize(
    ("command", "has", "without"),
    [
        ("find-lr", {"optimizer", "batch_size", "freeze", "layer_decay"}, {"learning_rate"}),
        (
            "augmentations",
            {"mirror"},
            {"batch_size", "optimizer", "mean", "pretrained", "device", "loss", "workers"},
        ),
    ],
)
def test_only_what_has_an_effect_can_be_given(command: str, has: set[str], without: set[str]) -> None:
    given = {option.name for option in main.commands[command].params}
    assert not given & (without | {"epochs", "ema_decay", "patience", "trackers", "resume"})
    assert given >= has | {"data", "recipe", "arch", "input_size", "crop", "seed", "mixup", "output"}
    assert given - {"lowest", "highest", "steps", "images"} <= {option.name for option in fit_command.params}


def test_both_want_data() -> None:
    for command in ("find-lr", "augmentations"):
        result = run(command)
        assert result.exit_code == 2
        assert "Missing option '--data'" in result.output
