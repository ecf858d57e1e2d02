"""The files that commands write: looked at before the work, for its outcome would be lost after it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click


def check_writable(file: Path) -> None:
    """Whether a file can be written where it is, or made.

    Raises:
        click.BadParameter: it can't.
    """
    _check(file, in_place=True)


def check_replaceable(file: Path) -> None:
    """Whether `replaced` can write a file, which takes a folder that takes files.

    Raises:
        click.BadParameter: it can't.
    """
    _check(file, in_place=False)


def replaceable(
    wrong: str, *suffixes: str
) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """An option's callback: one of the suffixes in any case, and `check_replaceable`.

    Args:
        wrong: what a file of another suffix is, as its error says.
        suffixes: in small letters.
    """

    def checked(_: click.Context, __: click.Parameter, given: Path | None) -> Path | None:
        if given is not None:
            if given.suffix.lower() not in suffixes:
                raise click.BadParameter(f"{given} is {wrong}")
            check_replaceable(given)
        return given

    return checked


def _check(file: Path, *, in_place: bool) -> None:
    try:
        if not file.parent.is_dir():
            raise click.BadParameter(f"{file} can't be written: there is no folder {file.parent}")
        is_allowed = (
            os.access(file, os.W_OK)
            if in_place and file.exists()
            else os.access(file.parent, os.W_OK | os.X_OK)
        )
    except OSError as error:  # a folder above can't be looked into
        raise click.BadParameter(f"{file} can't be written: {error.strerror or error}") from error
    if not is_allowed:
        raise click.BadParameter(f"{file} can't be written: permission denied")


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """The path of a hidden file to write, which takes the place of `file` on leaving.

    Raises:
        click.ClickException: it can't be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    except OSError as error:
        raise click.ClickException(f"{file} can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where it couldn't be made, it mostly can't be removed
            partial.unlink(missing_ok=True)
