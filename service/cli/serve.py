"""`fovea serve`: command line, environment and TOML file → Config → the server's life."""

import errno
import os
import socket
import sys
import tomllib
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from service.config import MODEL_SETTINGS, Config
from service.errors import ConfigError, IndexLocked, StartError
from service.setting import GROUPS, default_of, is_numbers, parse

F = TypeVar("F", bound=Callable[..., object])
_SETTINGS: tuple["Field[Any]", ...] = fields(Config)
_OWN_SETTINGS = "model_settings"


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
        for group in (*GROUPS, "General"):
            with formatter.section(group):
                formatter.write_dl(sections[group])


class _Numbers(click.ParamType[Any]):
    """Whole numbers separated by commas."""

    name = "numbers"

    def __init__(self, setting: "Field[Any]") -> None:
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text → numbers; the default is numbers already."""
        if not isinstance(value, str):
            return value
        try:
            return parse(self._setting, value)
        except ConfigError as error:
            return self.fail(str(error), param, ctx)


def _read_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from error
    tables = settings.pop("model", {})
    _refuse_unknown(path, settings, {setting.name for setting in _SETTINGS})
    # Click looks there after the command line and the environment, and converts what it finds.
    several = {setting.name for setting in _SETTINGS if _is_repeated(setting)}
    ctx.default_map = {
        name: [_text(part) for part in (value if isinstance(value, list) else [value])]
        if name in several
        else _text(value)
        for name, value in settings.items()
    }
    own = list(ctx.default_map.pop("model_settings", []))
    for model, table in _tables(path, tables, "model").items():
        own += [f"{model}.{name}={_text(value)}" for name, value in table.items()]
    ctx.meta[_OWN_SETTINGS] = own


def _refuse_unknown(path: Path, names: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.BadParameter(
            f"{path}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def _tables(path: Path, tables: Any, name: str) -> dict[str, dict[str, Any]]:
    """The [model.<name>] tables, checked."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise click.BadParameter(f"{path}: {name} is {tables!r}; expected tables [{name}.NAME] of settings")
    for table in tables.values():
        _refuse_unknown(path, table, MODEL_SETTINGS)
    return tables


def _text(value: Any) -> str:
    """A value of the file as the command line would have it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _own_settings(ctx: click.Context, _: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The models' own settings from everywhere; of one that is given twice the last counts."""
    from_environment = os.environ.get(f"FOVEA_{_OWN_SETTINGS.upper()}", "").split()
    return (*ctx.meta.get(_OWN_SETTINGS, ()), *from_environment, *given)


def _is_repeated(setting: "Field[Any]") -> bool:
    return isinstance(default_of(setting), tuple) and not is_numbers(setting)


def _options(function: F) -> F:
    for setting in reversed(_SETTINGS):
        default, metadata = default_of(setting), setting.metadata
        name = (metadata["option"] or setting.name).replace("_", "-")
        own = setting.name == _OWN_SETTINGS
        option = click.option(
            f"--{name}/--no-{name}" if isinstance(default, bool) else f"--{name}",
            setting.name,
            type=_kind(setting),
            default=",".join(map(str, default)) if is_numbers(setting) else default,
            envvar=None if own else f"FOVEA_{setting.name.upper()}",
            show_default=bool(default) or (default == 0 and not isinstance(default, bool)),
            multiple=_is_repeated(setting),
            metavar=_metavar(setting),
            callback=_own_settings if own else None,
            help=metadata["help"],
        )
        function = option(function)
    return function


def _kind(setting: "Field[Any]") -> Any:
    default = default_of(setting)
    if setting.metadata["choices"]:
        return click.Choice(setting.metadata["choices"])
    if is_numbers(setting):
        return _Numbers(setting)
    if isinstance(default, Path):
        return click.Path(path_type=Path)
    return str if isinstance(default, tuple) else type(default)


def _metavar(setting: "Field[Any]") -> str | None:
    if setting.metadata["choices"] or isinstance(default_of(setting), bool):
        return None
    name = setting.name.rsplit("_", 1)[-1].upper()
    if name in ("CACHE", "PATH", "ROOTS"):
        return "FOLDER"
    if setting.metadata["option"]:
        return "NAME.SETTING=VALUE" if setting.name == _OWN_SETTINGS else "NAME"
    if name in ("S", "MS", "BYTES", "PIXELS", "URL"):
        return {"S": "SECONDS", "MS": "MILLISECONDS"}.get(name, name)
    return {int: "N", float: "X", Path: "FOLDER", tuple: "N,N"}.get(type(default_of(setting)), "NAME")


@click.command(
    cls=_Command,
    context_settings={"max_content_width": 100},
    epilog="Every setting can also stand in the environment (--max-batch-size as FOVEA_MAX_BATCH_SIZE, "
    "--model as FOVEA_MODELS, separated by spaces) or in a TOML file (--config) under its name with "
    "underscores (max_batch_size = 16, models = ['a', 'b:2']). The command line beats the environment, "
    "which beats the file, which beats the default. One model's own settings stand in the file's table "
    "[model.NAME] (precision = 'int8'), in FOVEA_MODEL_SETTINGS as NAME.SETTING=VALUE, separated by spaces, "
    "or behind --model-setting; they beat what is set for all models, wherever that stands.",
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
    except IndexLocked as error:
        structlog.get_logger().error("start_failed", error=f"{error}{_taken_ports(config)}")
        sys.exit(1)
    except StartError as error:
        structlog.get_logger().error("start_failed", error=str(error))
        sys.exit(1)
    if not ended:
        # A thread is still inside a decoder or a model; Python's own way out could crash under it.
        os._exit(0)


def _taken_ports(config: Config) -> str:
    """Which ports a second server on the same index would find taken, too."""
    settings = [
        f"{name} {port}"
        for name, port in (("port", config.port), ("metrics_port", config.metrics_port))
        if _is_taken(config.host, port)
    ]
    if not settings:
        return ""
    verb = "is" if len(settings) == 1 else "are"
    return (
        f"; {' and '.join(settings)} {verb} taken, too: a second server needs an --index-path, "
        "a --port and a --metrics-port of its own"
    )


def _is_taken(host: str, port: int) -> bool:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # Else what is left of closed connections would look like a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
