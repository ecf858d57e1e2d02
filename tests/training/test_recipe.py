"""Recipes: what ships, and who wins over whom."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from training.cli import main
from training.cli_fit import fit_command
from training.losses import LOSSES
from training.models import architecture
from training.models.heads import POOLINGS
from training.optim import OPTIMIZERS
from training.recipe import describe_recipes, read_recipe, recipe_names
from training.trackers import TRACKERS

SHIPPED = {
    *("cifar-resnet20", "cifar-resnet56", "imagenet-resnet50", "imagenet-inception-v3"),
    *("finetune", "metric-learning"),
}


def parsed(*arguments: str) -> click.Context:
    return fit_command.make_context("fit", list(arguments))


def test_those_promised_are_there() -> None:
    assert set(recipe_names()) >= SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_each_is_taken_by_fit_and_says_what_it_cost(name: str) -> None:
    context = parsed("--recipe", name, "--data", "digits")
    for option, value in read_recipe(name).items():
        assert context.params[option] == value
        assert context.get_parameter_source(option) is click.core.ParameterSource.DEFAULT_MAP
    architecture(context.params["arch"])
    header = "\n".join(dict(describe_recipes())[name])
    for line in ("command:  ", "hardware: ", "time:     ", "score:    ", "data:     "):
        assert line in header
    assert f"--recipe {name}" in header


def test_stages_that_a_recipe_freezes_exist() -> None:
    told = read_recipe("finetune")
    import torch

    with torch.device("meta"):
        stages = [name for name, _ in architecture(told["arch"]).build(2).stages()]
    assert told["freeze"] in stages[:-1]


def test_the_command_line_goes_before_the_recipe_before_the_default(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('# mine\narch = "resnet34"\nbatch-size = 64\nmirror = false\ntrackers = "none"\n')
    # Wherever it stands.
    for arguments in (
        ("--recipe", str(recipe), "--arch", "resnet50"),
        ("--arch", "resnet50", "--recipe", str(recipe)),
    ):
        told = parsed(*arguments, "--data", "digits").params
        assert (told["arch"], told["batch_size"], told["mirror"], told["trackers"]) == (
            "resnet50",
            64,
            False,
            (),
        )
        assert told["optimizer"] == "sgd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3\n", "sets epoch; expected options of fovea-train fit"),
        ('output = "x"\n', "sets output; expected"),
        ("epochs = \n", "not TOML"),
        ('epochs = "many"\n', "'many' is not a valid integer range"),
        ('optimizer = "adam"\n', "'adam' is not one of 'sgd', 'adamw', 'lamb'"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(content)
    result = run("fit", "--recipe", str(recipe), "--data", "digits")
    assert result.exit_code != 0
    assert message in result.output


@pytest.mark.parametrize("name", ["nonesuch", "nonesuch.toml"])
def test_one_that_is_not_there_lists_those_that_are(name: str) -> None:
    result = run("fit", "--recipe", name, "--data", "digits")
    assert result.exit_code == 1
    assert f"--recipe is '{name}'; expected one of cifar-resnet20, cifar-resnet56" in result.output


def test_they_are_listed() -> None:
    result = run("recipes")
    assert result.exit_code == 0
    assert all(f"{name}\n" in result.output for name in SHIPPED)
    assert "  score:    not run" in result.output


def test_choices_are_those_that_there_are() -> None:
    choices = {
        option.name: tuple(option.type.choices)
        for option in fit_command.params
        if isinstance(option.type, click.Choice)
    }
    assert choices["loss"] == LOSSES
    assert choices["pooling"] == POOLINGS
    assert choices["optimizer"] == OPTIMIZERS
    from training.cli_fit_options import TRACKERS as SHOWN

    assert SHOWN == TRACKERS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))
