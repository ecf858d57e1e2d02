"""`fovea index add`: a folder, a table or shards into a collection."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click
from fovea import AlreadyExists, AttributeType, Client, Collection, NotFound

from service.cli.bulk.attributes import DECLARED, MAX_DECLARED, OWN, SHA256
from service.cli.bulk.broken import BrokenList
from service.cli.bulk.entry import Entry
from service.cli.bulk.indexing import Indexing
from service.cli.bulk.progress import progress
from service.cli.bulk.source import Source, open_source
from service.cli.connection import collection_option, connected, exit_status, server_options
from service.cli.output import count_of_images, origin
from service.cli.upkeep import attribute_option
from service.retrieval.schema import is_text


@click.command()
@click.argument(
    "source", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="SOURCE..."
)
@collection_option
@click.option(
    "--model", metavar="NAME", help="Makes the vectors of a new collection. Default: the server's default."
)
@attribute_option
@click.option(
    "--broken",
    "broken_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every file that can't be used to FILE: JSON lines of id, code and message.",
)
@click.option("--checksum", is_flag=True, help="Read every file, instead of trusting its size and time.")
@server_options
def add(
    source: tuple[Path, ...],
    collection: str,
    model: str | None,
    attributes: dict[str, str],
    broken_file: Path | None,
    checksum: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Index the images of SOURCE.

    SOURCE is a folder; a table, .csv or .parquet, with a column path; or WebDataset shards, .tar. The
    collection is made if it is missing. An image's id is its path inside the folder, or beside the table, or
    in the shard; a table's column id says otherwise. Beside it are stored its `path`, its `uri` where it is a
    file, its `label` where it lies in a class folder or the source has one, and a table's other columns.

    The same command again goes on where it was stopped: what is there and unchanged is passed over, by the
    size and time of its file. Files with the same content are embedded once. Files that can't be used are
    listed at the end, and the exit status is then 1.
    """
    images = open_source(source)
    total = images.count()
    if not total and next(images.entries(), None) is None:
        raise click.ClickException(images.empty)
    done: Counter[str] = Counter()
    with connected(address, timeout_s) as client, BrokenList(broken_file) as broken:
        there = _collection(client, collection, model, images, attributes)
        with progress() as bar:
            task = bar.add_task("indexing", total=total)
            for step in Indexing(client, there, checksum=checksum).run(images.entries()):
                done.update(embedded=step.embedded, copied=step.copied, unchanged=step.unchanged)
                for each in step.broken:
                    broken.add(each)
                bar.advance(task, step.images)
        stored = client.count(collection)
    broken.show(done.total() + broken.count)
    click.echo(_summary(images.name, done, collection, stored))
    if done.total() and (example := broken.first_other(images.entries())):
        click.echo(_example(example, collection))
    exit_status(broken.count)


def _collection(
    client: Client, name: str, model: str | None, images: Source, stated: Mapping[str, str]
) -> Collection:
    """The collection, made if it is missing, and fit for what comes."""
    try:
        there = client.collection(name)
    except NotFound:
        attributes = {**images.columns, **DECLARED, **cast("dict[str, AttributeType]", stated)}
        if len(attributes) > MAX_DECLARED:
            raise click.ClickException(
                f"{images.name} has columns for {len(attributes)} attributes; expected at most "
                f"{MAX_DECLARED}: make the collection with those that filters need, by `fovea index create`"
            ) from None
        _check_types(name, attributes)
        try:
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


def _summary(name: str, done: Counter[str], collection: str, stored: int) -> str:
    text = f"indexed {count_of_images(done['embedded'] + done['copied'])} of {name}"
    if done["copied"]:
        text += f", {done['copied']:,} of them with the vector of the same content"
    if done["unchanged"]:
        text += f"; {done['unchanged']:,} were there already"
    return f"{text}; collection {collection!r} has {count_of_images(stored)}"


def _example(entry: Entry, collection: str) -> str:
    suffix = "" if collection == "default" else f" --collection {collection}"
    # A name that is no UTF-8 can't be printed.
    if isinstance(entry.place, Path) and is_text(str(entry.place)):
        photo = shlex.quote(str(entry.place))
    else:
        photo = f"--id {shlex.quote(entry.id)}"
    return f"next: fovea search {photo}{suffix}"
