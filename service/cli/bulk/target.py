"""The collection that `fovea index add` fills."""

from collections.abc import Mapping
from typing import cast

import click
from fovea import AlreadyExists, AttributeType, Client, Collection, NotFound

from service.cli.bulk.attributes import DECLARED, MAX_DECLARED, OWN, SHA256
from service.cli.bulk.source import Source
from service.cli.loading import wait_for_collection, wait_for_model
from service.cli.output import origin
from service.manifest import Manifest


def ready_collection(
    client: Client,
    name: str,
    model: str | None,
    images: Source,
    stated: Mapping[str, str],
    manifest: Manifest | None,
    timeout_s: float,
) -> Collection:
    """The collection, made if it is missing, and fit for what comes.

    Args:
        client: of the server.
        name: the collection's.
        model: the server's, that makes its vectors; None: the default.
        images: what comes.
        stated: attributes of a new collection, name → type; of one that is there they must be so.
        manifest: of the package that makes the vectors, where the server doesn't.
        timeout_s: how long a model is waited for that the server is still loading.

    Raises:
        click.ClickException: it can't take what comes.
    """
    try:
        if manifest is None:
            wait_for_collection(client, name, timeout_s)
        there = client.collection(name)
    except NotFound:
        if manifest is None:
            wait_for_model(client, model, timeout_s)
        attributes = {**images.columns, **DECLARED, **cast("dict[str, AttributeType]", stated)}
        if len(attributes) > MAX_DECLARED:
            raise click.ClickException(
                f"{images.name} has columns for {len(attributes)} attributes; expected at most "
                f"{MAX_DECLARED}: make the collection with those that filters need, by `fovea index create`"
            ) from None
        _check_types(name, attributes)
        try:
            if manifest is not None:
                return _create_for_package(client, name, manifest, attributes)
            return client.create_collection(name, model=model, attributes=attributes)
        except AlreadyExists:  # somebody else's command was faster
            there = client.collection(name)
    if model is not None and model != there.model:
        raise click.ClickException(
            f"collection {name!r} has vectors of {origin(there)}, not of {model}; "
            f"index into another one with --collection"
        )
    _check_types(name, there.attributes)
    for attribute, declared in stated.items():
        if there.attributes.get(attribute) != declared:
            found = there.attributes.get(attribute)
            raise click.ClickException(
                f"collection {name!r} declares {attribute!r} as {found or 'nothing'}, not as {declared}; a "
                "collection's attributes are set when it is made"
            )
    if there.attributes.get(SHA256) != OWN[SHA256]:
        click.echo(
            f"collection {name!r} doesn't declare {SHA256}=string: equal images are embedded once in this "
            "run, but again in others",
            err=True,
        )
    return there


def _check_types(name: str, attributes: Mapping[str, str]) -> None:
    for own, declared in OWN.items():
        if attributes.get(own, declared) != declared:
            raise click.ClickException(
                f"collection {name!r} declares {own!r} as {attributes[own]}; expected {declared}, as "
                "`fovea index add` writes it"
            )


def _create_for_package(
    client: Client, name: str, manifest: Manifest, attributes: Mapping[str, AttributeType]
) -> Collection:
    made = [manifest.fingerprint(variant.precision) for variant in manifest.variants]
    served = {model.fingerprint for model in client.models()}
    # Of the precision that the server runs, so that it can search by images.
    fingerprint = next((each for each in made if each in served), made[0])
    dimension = manifest.embedding_dimension
    return client.create_collection(name, dimension=dimension, fingerprint=fingerprint, attributes=attributes)
