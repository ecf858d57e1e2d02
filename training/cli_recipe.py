"""--recipe, and fovea-train recipes."""

from collections.abc import Callable

import click

from training.cli_options import told
from training.cli_sections import Options
from training.errors import SettingError
from training.recipe import describe_recipes, read_recipe


def recipe_option(option: Callable[..., Options]) -> Options:
    """The option, made by `option`; what the command line says goes before what the recipe says."""
    return option(
        "--recipe",
        is_eager=True,
        expose_value=False,
        callback=_apply,
        metavar="NAME|FILE",
        help="Take the options that a recipe has; those given here win. `fovea-train recipes` lists them.",
    )


def _apply(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        told_by = read_recipe(value)
    except SettingError as error:
        raise click.ClickException(str(error)) from error
    known = {parameter.name for parameter in context.command.params} - {"recipe", "resume", "output"}
    unknown = [name for name in told_by if name not in known]
    # Other commands take a part of fit's options, and find the rest in a recipe too.
    if unknown and context.command.name == "fit":
        raise click.ClickException(
            f"--recipe {value} sets {', '.join(unknown)}; expected options of fovea-train fit, with _ for -"
        )
    context.default_map = {**(context.default_map or {}), **told_by}


@click.command("recipes")
@told
def recipes_command() -> None:
    """List the recipes that come with Fovea, and what is known of each."""
    for name, description in describe_recipes():
        click.echo(f"{name}\n")
        for line in description:
            click.echo(f"  {line}" if line else "")
        click.echo()
