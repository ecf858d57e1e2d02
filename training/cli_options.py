"""What the commands of fovea-train have in common."""

import math
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from training.errors import Interrupted, SettingError, TrainingError

# Of both commands; benchmarks/decode.py measured it.
SCALED_DECODE_HELP = (
    "Evaluate and serve large JPEGs decoded at a half, a quarter or an eighth of their size, as long as the "
    "short side keeps 1.25 times --resize-size: 12 megapixels take a third of the time or less. Measured "
    "cost, with an ImageNet network on photographs of 0.5 to 12 megapixels: 1.2% of the top-1 answers "
    "change, accuracy -0.4 points (-1.0 at the worst size, 0 at 12 megapixels)."
)

# What the extra `train` installs, by the names that are imported.
_EXTRA = (
    "torch",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "jinja2",
    "matplotlib",
    "kornia",
    "pytorch_metric_learning",
    "pyarrow",
    "webdataset",
    "safetensors",
)


# Of commands that also take it without the option's name.
run_option = click.option(
    "--run",
    "named_run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The same as naming the run's folder without it.",
)


def one_of(name: str, given: Path | None, named_run: Path | None) -> Path | None:
    """What was named in either way.

    Raises:
        SettingError: in both.
    """
    if given is not None and named_run is not None:
        raise SettingError(f"both {name} {given} and --run {named_run} are given; expected one of them")
    return given or named_run


PICTURES = "FOLDER|TABLE|SHARDS"
_PATTERN = frozenset("{*?[")


def pictures(_context: click.Context, _option: click.Parameter, value: str | None) -> Path | None:
    """What holds images: a folder, a table, or shards, which a pattern may name.

    Raises:
        click.BadParameter: it isn't there.
    """
    if value is None:
        return None
    if not Path(value).exists() and not _PATTERN & set(value):
        raise click.BadParameter(
            f"{value!r} does not exist; expected a folder of images, a .csv or .parquet table, a folder of "
            ".tar shards, or their pattern"
        )
    return Path(value)


def channels(
    _context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    """Three numbers with commas between them, one an RGB channel, of pixels from 0 to 1.

    A mean is from 0 to 1, a standard deviation above 0 and at most 1.

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
    numbers = (red, green, blue)
    if not all(math.isfinite(channel) for channel in numbers):
        raise click.BadParameter(f"{value!r}; expected finite numbers")
    if option.name == "std" and min(numbers) <= 0:
        raise click.BadParameter(f"{value!r}; expected numbers above 0")
    if min(numbers) < 0 or max(numbers) > 1:
        hint = "; divide by 255" if max(numbers) > 1 else ""
        raise click.BadParameter(f"{value!r}; expected numbers of pixels from 0 to 1{hint}")
    return numbers


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Turns training's own errors, and what isn't installed, into one message and exit status 1.

    The command imports what needs PyTorch inside, so that its --help needs nothing.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            _check_text(name, value)
        try:
            command(*args, **kwargs)
        except Interrupted as error:
            if first_process():
                click.echo(str(error), err=True)
            # As a shell says it of a program that a signal ended.
            raise click.exceptions.Exit(128 + error.signal) from error
        except TrainingError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing not in _EXTRA:
                raise
            raise click.ClickException(
                f"{missing} isn't installed; fovea-train needs the extra 'train': "
                "pip install 'fovea-serving[train]'"
            ) from error

    return wrapped


def first_process() -> bool:
    """Whether this is the process that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _check_text(name: str, value: object) -> None:
    """File names of other encodings could neither be printed nor recorded."""
    if not isinstance(value, str | Path):
        return
    try:
        str(value).encode()
    except UnicodeEncodeError:
        option = f"--{name.replace('_', '-')}"
        raise click.ClickException(f"{option} is {str(value)!a}; expected UTF-8, so rename it") from None
