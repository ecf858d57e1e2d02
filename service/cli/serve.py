"""`fovea serve`: command line, environment and TOML file → Config → the server's life."""

import asyncio
import os
import sys
import tomllib
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from service.config import Config, default_of
from service.errors import StartError

F = TypeVar("F", bound=Callable[..., object])
_SETTINGS: tuple["Field[Any]", ...] = fields(Config)


class _Command(click.Command):
    """Help with the settings in their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        groups = {setting.name: setting.metadata["group"] for setting in _SETTINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(groups.get(parameter.name or "", "General"), []).append(record)
        for group, records in sections.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _read_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from error
    known = {setting.name for setting in _SETTINGS}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise click.BadParameter(
            f"{path}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    # Click looks there after the command line and the environment, and converts what it finds.
    several = {setting.name for setting in _SETTINGS if isinstance(default_of(setting), tuple)}
    ctx.default_map = {
        name: [str(part) for part in (value if isinstance(value, list) else [value])]
        if name in several
        else str(value)
        for name, value in settings.items()
    }


def _options(function: F) -> F:
    for setting in reversed(_SETTINGS):
        default, metadata = default_of(setting), setting.metadata
        several = isinstance(default, tuple)
        name = "model" if several else setting.name
        kind: Any = click.Choice(metadata["choices"]) if metadata["choices"] else type(default)
        option = click.option(
            f"--{name.replace('_', '-')}",
            setting.name,
            type=str if several else click.Path(path_type=Path) if isinstance(default, Path) else kind,
            default=default,
            envvar=f"FOVEA_{setting.name.upper()}",
            show_default=bool(default) or default == 0,
            multiple=several,
            metavar=_metavar(setting),
            help=metadata["help"],
        )
        function = option(function)
    return function


def _metavar(setting: "Field[Any]") -> str | None:
    if setting.metadata["choices"]:
        return None
    name = setting.name.rsplit("_", 1)[-1].upper()
    if name in ("S", "MS", "BYTES", "PIXELS"):
        return {"S": "SECONDS", "MS": "MILLISECONDS"}.get(name, name)
    return {int: "N", float: "X", Path: "FOLDER"}.get(type(default_of(setting)), "NAME")


@click.command(
    cls=_Command,
    context_settings={"max_content_width": 100},
    epilog="Every setting can also stand in the environment (--max-batch-size as FOVEA_MAX_BATCH_SIZE, "
    "--model as FOVEA_MODELS, separated by spaces) or in a TOML file (--config) under its name with "
    "underscores (max_batch_size = 16, models = ['a', 'b:2']). The command line beats the environment, "
    "which beats the file, which beats the default.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    envvar="FOVEA_CONFIG",
    show_envvar=True,
    is_eager=True,
    expose_value=False,
    callback=_read_file,
    help="TOML file of settings.",
)
@_options
def serve(**settings: Any) -> None:
    """Serve the models of a repository over gRPC.

    \b
    fovea serve --model-repository models/
    fovea classify photo.jpg
    curl localhost:8002/metrics

    The server is NOT_SERVING (grpc.health.v1) until its models are warm. SIGTERM drains it: NOT_SERVING
    first, then calls under way are finished.
    """
    # Late, so that `fovea classify` loads no model runtime, and works where none is installed.
    try:
        import structlog

        from service.logs import configure_logs
        from service.server import serve as run_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("service", "fovea"):
            raise
        raise click.ClickException(
            f"the server needs {error.name}, which isn't installed; "
            "pip install 'fovea-serving[serve]' brings it"
        ) from error

    try:
        config = Config(**settings)
    except StartError as error:
        click.echo(f"fovea serve: {error}", err=True)
        sys.exit(1)
    configure_logs(config.log_format)
    try:
        ended = run_server(config)
    except StartError as error:
        structlog.get_logger().error("start_failed", error=str(error))
        sys.exit(1)
    if not ended:
        # A thread is still inside a decoder or a model; Python's own way out could crash under it.
        os._exit(0)
