"""How the client commands reach the server: their common options, and what a person reads on failure."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
from fovea import DEFAULT_TARGET, Client, DeadlineExceeded, FoveaError, Unavailable

F = TypeVar("F", bound=Callable[..., object])


def _with_port(_: click.Context, __: click.Parameter, address: str) -> str:
    if ":" not in address or address.endswith(("]", ":")):  # gRPC would take port 443
        raise click.BadParameter(
            f"{address!r} has no port; expected HOST:PORT, for instance {DEFAULT_TARGET}"
        )
    return address


address_option = click.option(
    "--address",
    default=DEFAULT_TARGET,
    show_default=True,
    envvar="FOVEA_ADDRESS",
    show_envvar=True,
    metavar="HOST:PORT",
    callback=_with_port,
    help="The server.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
collection_option = click.option(
    "--collection", default="default", show_default=True, metavar="NAME", help="Collection of images."
)


def _not_nan(_: click.Context, __: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):  # which is inside every range, as Click compares
        raise click.BadParameter("nan is not a number of seconds")
    return seconds


def server_options(function: F) -> F:
    """--address and --timeout-s."""
    text = "How long each request may take, and how long a model that is still loading is waited for."
    return _server_options(function, 30.0, text)


def patient_server_options(function: F) -> F:
    """The same for what takes long."""
    return _server_options(function, math.inf, "How long it may take; inf: as long as the server lets it.")


def _server_options(function: F, timeout_s: float, text: str) -> F:
    timeout = click.option(
        "--timeout-s",
        type=click.FloatRange(0, min_open=True),
        callback=_not_nan,
        default=timeout_s,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )
    return address_option(timeout(function))


def model_option(text: str) -> Callable[[F], F]:
    """--model."""
    return click.option("--model", metavar="NAME", help=text)


def model_options(text: str = "Default: the server's default model.") -> Callable[[F], F]:
    """--model, with what its help says, and --version."""
    version = click.option("--version", metavar="VERSION", help="Of the model. Default: the loaded one.")
    return lambda function: model_option(text)(version(function))


@contextmanager
def connected(address: str, timeout_s: float) -> Iterator[Client]:
    """A client whose errors end the command with one line and exit status 1."""
    try:
        opened = Client(address, timeout=timeout_s)
    except ValueError as error:  # no address
        raise click.ClickException(f"--address: {error}") from error
    with opened as client:
        try:
            yield client
        except UnicodeEncodeError as error:  # of what was typed; files' names have been made UTF-8
            raise click.ClickException(
                f"{error.object!r} isn't UTF-8; expected names and ids that are"
            ) from error
        except Unavailable as error:
            if error.request_id:  # the server said so itself: it is loading or draining
                raise click.ClickException(error.message) from error
            raise click.ClickException(
                f"no Fovea server answers at {address}; start one with `fovea serve`, or "
                "name another with --address"
            ) from error
        except DeadlineExceeded as error:
            if error.request_id:  # the server says what of it is done
                raise click.ClickException(error.message) from error
            raise click.ClickException(
                f"{address} hasn't answered within {timeout_s:g} s; allow more with --timeout-s"
            ) from error
        except FoveaError as error:
            raise click.ClickException(error.message) from error


def report(name: str, error: FoveaError) -> None:
    """One line for one file that failed."""
    # The message names a file that can't be read already.
    message = error.message if error.message.startswith(name) else f"{name}: {error.message}"
    click.secho(message, fg="red", err=True)


def exit_status(failed: int) -> None:
    """End the command; a failure of some files is a failure."""
    sys.exit(1 if failed else 0)
