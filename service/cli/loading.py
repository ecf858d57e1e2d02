"""Waiting for models that the server is still loading."""

import time
from collections.abc import Callable, Sequence

import click
from fovea import Client, LoadingModel

_LONGEST_PAUSE_S = 0.5


def wait_for_model(client: Client, model: str | None, timeout_s: float) -> None:
    """Return as soon as a model, by default the server's default one, isn't being loaded (any more).

    Whether the server has it at all is for the call to find out.

    Raises:
        ClickException: it still is after `timeout_s`.
        FoveaError: the server can't be asked.
    """
    _wait(client, timeout_s, lambda each: each.name == model if model else each.is_default)


def wait_for_collection(client: Client, collection: str, timeout_s: float) -> None:
    """The same for the model that makes a collection's vectors.

    Which of those that are loading it is, is known only when it is there: until then any may be.

    Raises:
        NotFound: there is no such collection.
    """
    there = client.collection(collection)
    if there.fingerprint and not there.model:
        _wait(client, timeout_s, lambda _: not client.collection(collection).model)


def _wait(client: Client, timeout_s: float, concerned: Callable[[LoadingModel], bool]) -> None:
    give_up = time.monotonic() + timeout_s
    pause_s, told = 0.05, False
    while waiting := [each.name for each in client.loading() if concerned(each)]:
        if not told:
            click.echo(
                f"the server is still loading {_named(waiting)}; waiting up to {timeout_s:g} s", err=True
            )
            told = True
        left_s = give_up - time.monotonic()
        if left_s <= 0:
            verb = "is" if len(waiting) == 1 else "are"
            raise click.ClickException(
                f"{_named(waiting)} {verb} still loading after {timeout_s:g} s; wait longer with --timeout-s"
            )
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _named(models: Sequence[str]) -> str:
    return f"model{'s' * (len(models) != 1)} {', '.join(map(repr, models))}"
