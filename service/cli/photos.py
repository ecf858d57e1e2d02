"""Files on the command line: which are taken, and what is said of one that fails."""

from collections import Counter
from pathlib import Path
from typing import Any

import click
from fovea import (
    Client,
    FailedPrecondition,
    FoveaError,
    InvalidArgument,
    InvalidImage,
    LoadingModel,
    Model,
    NotFound,
)

from service.cli.clip_files import is_clip
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


def images_only(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """The same; refuses film clips too."""
    for photo in value if isinstance(value, tuple) else (value,):
        if photo is not None and is_clip(Path(photo)):
            raise click.BadParameter(
                f"{photo} is a film clip; expected an image, for instance a frame of it that you saved as "
                f"JPEG or PNG. `fovea classify {photo}` names what is on a clip"
            )
    return files_only(context, parameter, value)


photos_argument = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", callback=files_only)
images_argument = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", callback=images_only)


class Failures:
    """The photos of one command that have no answer, each told once.

    Attributes:
        count: of them.
    """

    def __init__(self, client: Client, model: str | None, *, as_json: bool) -> None:
        """Prepare.

        Args:
            client: of the server.
            model: that was asked for; None: the server's default one.
            as_json: print an object for every photo, whatever failed.
        """
        self._client, self._model, self._as_json = client, model, as_json
        self._alike: Counter[tuple[str, str]] = Counter()
        self.count = 0

    def add(self, photo: str, error: FoveaError) -> None:
        """Say why a photo has no answer; what isn't the photo's own fault only the first time.

        Raises:
            NotFound, FailedPrecondition: the model isn't there, or has no classes: so it is for every other
                photo.
            click.ClickException: no model was asked for, and the server has no default one; likewise.
        """
        if isinstance(error, NotFound | FailedPrecondition):
            raise error
        if not self.count and self._model is None and isinstance(error, InvalidArgument):
            self._check_default()
        self.count += 1
        if self._as_json:
            print_json({"photo": photo, "error": {"code": error.code, "message": error.message}})
        elif isinstance(error, InvalidImage):
            report(photo, error)
        else:
            self._alike[error.code, error.message] += 1
            if self._alike[error.code, error.message] == 1:
                report(photo, error)

    def close(self) -> None:
        """Say how many more photos failed as one that was named."""
        for (_, message), photos in self._alike.items():
            if photos > 1:
                more = f"{photos - 1:,} more photo{'s' * (photos > 2)}"
                click.secho(f"{more}: {message} (--json names each)", fg="red", err=True)

    def _check_default(self) -> None:
        # What is ready meanwhile is in both, not in none.
        models: list[Model | LoadingModel] = [*self._client.loading(), *self._client.models()]
        if models and not any(model.is_default for model in models):
            names = ", ".join(sorted({model.name for model in models}))
            raise click.ClickException(
                f"the server has no default model; name one with --model: {names}; or start it with "
                "--default-model"
            )
