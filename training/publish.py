"""How a package's folder comes into a model repository: whole or not at all."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import ExportError, VersionTaken

MAX_VERSION = 999_999_999
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def check_name(name: str) -> None:
    """Raises ExportError where a model can't be called that."""
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"the model's name is {name!r}; expected 1 to 128 letters, digits, '_', '-' and '.', starting "
            "with a letter or digit"
        )


def next_version(repository: Path, name: str) -> int:
    """One above the highest version there is; 1 for a new model.

    Raises:
        ExportError: <repository>/<name> is something else than a folder of versions.
    """
    folder = repository / name
    try:
        there = [int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name)]
    except FileNotFoundError:
        return 1
    except NotADirectoryError:
        raise _not_a_folder(folder) from None
    except OSError as error:
        raise ExportError(f"{folder}: can't be read: {error.strerror}") from error
    version = 1 + max(there, default=0)
    if version > MAX_VERSION:
        raise ExportError(f"{folder} holds version {MAX_VERSION}, the highest there can be")
    return version


@contextmanager
def staged(repository: Path, name: str, version: int) -> Iterator[Path]:
    """A hidden folder to write a package into, renamed to <repository>/<name>/<version> on leaving.

    An error inside removes it. A kill leaves it, hidden, where no server looks for models.

    Raises:
        VersionTaken: that version is there already.
        ExportError: the repository can't be written to, also where the disk fills up inside.
    """
    target = repository / name / str(version)
    _refuse_existing(target)
    if target.parent.exists() and not target.parent.is_dir():
        raise _not_a_folder(target.parent)
    # mkdir, not mkdtemp, whose folders no other user could read.
    temporary = repository / f".{name}-{version}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"can't write to the model repository {repository}: {error.strerror}") from error
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        target.parent.mkdir(exist_ok=True)
        _refuse_existing(target)
        try:
            temporary.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another export was faster by a hair
                raise _taken(target) from error
            raise
        _sync(target.parent)
        _sync(repository)
    except OSError as error:
        raise ExportError(f"can't publish {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise _taken(target)


def _taken(target: Path) -> VersionTaken:
    return VersionTaken(
        f"{target} is there already, and published versions never change; choose another --version"
    )


def _not_a_folder(path: Path) -> ExportError:
    return ExportError(f"{path} isn't a folder; expected the model's folder of versions, or nothing")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
