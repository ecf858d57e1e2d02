"""What the commands of fovea-train have in common."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from training.errors import TrainingError


def channels(
    _context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    """Three finite numbers with commas between them, one an RGB channel; above 0 for --std.

    Raises:
        click.BadParameter: they aren't that.
    """
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r}; expected three numbers with commas between them, such as 0.485,0.456,0.406"
        ) from None
    if not all(math.isfinite(channel) for channel in (red, green, blue)):
        raise click.BadParameter(f"{value!r}; expected finite numbers")
    if option.name == "std" and min(red, green, blue) <= 0:
        raise click.BadParameter(f"{value!r}; expected numbers above 0")
    return red, green, blue


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Turns training's own errors into one message and exit status 1."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TrainingError as error:
            raise click.ClickException(str(error)) from error

    return wrapped
