"""The collection that an evaluation makes for itself, and what killed ones have left of theirs."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
from fovea import Client, Collection, FoveaError, Item, NotFound

from service.cli.quality.labelled import Pictures

_NAME = re.compile(r"fovea-evaluate\.([0-9a-f]{1,12})\.[0-9a-f]{16}")
# No evaluation takes so long: a collection that is older has nobody any more. One that is younger may be that
# of another evaluation, which runs now.
LEFT_AFTER_S = 86_400


@contextmanager
def temporary_collection(client: Client, pictures: Pictures) -> Iterator[Collection]:
    """A collection of these pictures' vectors, indexed; it is dropped in the end.

    First drops those that killed evaluations left more than a day ago.

    Raises:
        FoveaError: it can't be made or filled.
    """
    drop_left_overs(client)
    name = f"fovea-evaluate.{int(time.time()):x}.{secrets.token_hex(8)}"
    client.create_collection(name, dimension=pictures.vectors.shape[1], fingerprint=pictures.fingerprint)
    try:
        items = (
            Item(item_id, vector=vector)
            for item_id, vector in zip(pictures.ids, pictures.vectors, strict=True)
        )
        for written in client.upsert_stream(name, items, fingerprint=pictures.fingerprint):
            if written.error is not None:
                raise written.error
        client.flush(name)
        yield client.collection(name)
    finally:
        _drop(client, name)


def drop_left_overs(client: Client) -> None:
    """Drop the collections of evaluations that were killed; what can't be dropped is told on stderr."""
    for collection in client.collections():
        made = _NAME.fullmatch(collection.name)
        if made and time.time() - int(made[1], 16) > LEFT_AFTER_S:
            _drop(client, collection.name)


def _drop(client: Client, name: str) -> None:
    try:
        with suppress(NotFound):  # another evaluation was quicker
            client.drop_collection(name)
    except FoveaError as error:
        click.secho(f"collection {name!r} is left behind: {error.message}", fg="red", err=True)
