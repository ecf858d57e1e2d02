"""A collection as the client gives it ↔ what its file says of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from fovea import Collection

from service.errors import FoveaError
from service.retrieval.index import CollectionSpec, Metric, Storage
from service.retrieval.schema import AttributeType


def spec_of(collection: Collection) -> CollectionSpec:
    """What the collection is made of.

    Raises:
        click.ClickException: a newer server says something that this release doesn't know.
    """
    try:
        return CollectionSpec(
            collection.name,
            collection.dimension,
            Metric(collection.metric),
            collection.fingerprint,
            {name: AttributeType(declared) for name, declared in collection.attributes.items()},
            Storage(collection.storage),
        )
    except ValueError as error:
        raise click.ClickException(
            f"collection {collection.name!r} has {error}, which this release doesn't know"
        ) from error


@contextmanager
def file_errors() -> Iterator[None]:
    """What is wrong with a collection's file ends the command with one line and exit status 1."""
    try:
        yield
    except FoveaError as error:
        raise click.ClickException(str(error)) from error
