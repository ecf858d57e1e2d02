"""Files on the command line: which are taken, and what is said of one that fails."""

from pathlib import Path
from typing import Any

import click
from fovea import FailedPrecondition, FoveaError, NotFound

from service.cli.connection import report
from service.cli.output import print_json


def files_only(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """Callback of an argument or several: refuses folders."""
    for photo in value if isinstance(value, tuple) else (value,):
        if photo is not None and Path(photo).is_dir():
            raise click.BadParameter(
                f"{photo} is a folder; give its files, for instance {Path(photo) / '*.jpg'}, "
                f"or index all of them with `fovea index add {photo}`"
            )
    return value


photos_argument = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", callback=files_only)


def print_failure(photo: str, error: FoveaError, as_json: bool) -> None:
    """Say why one file has no answer.

    Raises:
        NotFound, FailedPrecondition: the model isn't there, or has no classes: so it is for every other file.
    """
    if isinstance(error, NotFound | FailedPrecondition):
        raise error
    if as_json:
        print_json({"photo": photo, "error": {"code": error.code, "message": error.message}})
    else:
        report(photo, error)
