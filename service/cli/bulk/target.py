"""The collection that `fovea index add` fills."""

import itertools
import shlex
from collections.abc import Mapping
from typing import cast

import click
from fovea import AlreadyExists, AttributeType, Client, Collection, NotFound

from service.cli.bulk.attributes import DECLARED, MAX_DECLARED, OWN, SHA256, URI, number_type
from service.cli.bulk.source import Source
from service.cli.loading import wait_for_collection, wait_for_model
from service.cli.output import named_types, origin
from service.manifest import Manifest

# Rows by which texts are told from numbers.
_LOOKED_AT = 100


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
        _check_known(images, stated, attributes)
        try:
            if manifest is not None:
                made = _create_for_package(client, name, manifest, attributes)
            else:
                made = client.create_collection(name, model=model, attributes=attributes)
            if attributes != DECLARED:
                click.echo(_made(made, images, stated), err=True)
            return made
        except AlreadyExists:  # somebody else's command was faster
            there = client.collection(name)
    if manifest is None and not there.fingerprint:
        raise click.ClickException(
            f"collection {name!r} takes your own vectors, not images; index into another one with "
            "--collection"
        )
    if model is not None and model != there.model:
        raise click.ClickException(
            f"collection {name!r} has vectors of {origin(there)}, not of {model}; "
            f"index into another one with --collection"
        )
    _check_types(name, there.attributes)
    for attribute, declared in stated.items():
        if there.attributes.get(attribute) != declared:
            found = there.attributes.get(attribute)
            said = f"declares {attribute!r} as {found}, not as {declared}"
            said = said if found else f"doesn't declare {attribute!r}"
            raise click.ClickException(
                f"collection {name!r} {said}; a collection's attributes are set when it is made"
            )
    if there.attributes.get(SHA256) != OWN[SHA256]:
        click.echo(
            f"collection {name!r} doesn't declare {SHA256}=string: equal images are embedded once in this "
            "run, but again in others",
            err=True,
        )
    if undeclared := sorted({*images.columns, *DECLARED} - {SHA256} - there.attributes.keys()):
        reembed = " and `fovea index reembed` finds no images" if URI in undeclared else ""
        click.echo(
            f"collection {name!r} doesn't declare {', '.join(undeclared)}: stored with each image, but no "
            f"filter can ask for them{reembed}",
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


def _check_known(images: Source, stated: Mapping[str, str], attributes: Mapping[str, str]) -> None:
    """A misspelt name would be declared, and never written."""
    known = {*images.columns, *DECLARED, *OWN}
    for attribute in stated:
        if images.knows_all and attribute not in known:
            raise click.ClickException(
                f"{images.name} has nothing for --attribute {attribute}={attributes[attribute]}; expected "
                f"one of {', '.join(sorted(known))}. `fovea index create` declares what comes later"
            )


def _made(made: Collection, images: Source, stated: Mapping[str, str]) -> str:
    """What is declared, and which columns' texts are all numbers."""
    text = f"made collection {made.name!r} with attributes: {named_types(made.attributes)}"
    texts = {name for name, kind in images.columns.items() if kind == "string"} - {*DECLARED, *stated}
    looked_at = list(itertools.islice(images.entries(), _LOOKED_AT)) if texts else []
    options = [
        f"--attribute {shlex.quote(f'{name}={kind}')}"
        for name in sorted(texts)
        if (kind := number_type([entry.attributes.get(name) for entry in looked_at]))
    ]
    if options:
        text += f"; to filter by numbers, drop it and begin again with {' '.join(options)}"
    return text


def _create_for_package(
    client: Client, name: str, manifest: Manifest, attributes: Mapping[str, AttributeType]
) -> Collection:
    made = [manifest.fingerprint(variant.precision) for variant in manifest.variants]
    served = {model.fingerprint for model in client.models()}
    # Of the precision that the server runs, so that it can search by images.
    fingerprint = next((each for each in made if each in served), made[0])
    dimension = manifest.embedding_dimension
    return client.create_collection(name, dimension=dimension, fingerprint=fingerprint, attributes=attributes)
