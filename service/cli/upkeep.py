"""`fovea index`: make, count, empty, save, restore and renew collections."""

import sys
from dataclasses import asdict
from typing import cast, get_args

import click
from fovea import AlreadyExists, AttributeType, Filter, NotFound, ReembedProgress, UpsertResult

from service.cli.bulk.progress import progress
from service.cli.connection import (
    collection_option,
    connected,
    exit_status,
    json_option,
    model_option,
    model_options,
    patient_server_options,
    report,
    server_options,
)
from service.cli.filter_expression import filter_option
from service.cli.output import print_json, print_table

_MAX_REPORTED = 50
_METRICS = ("cosine", "inner_product", "l2")
_STORAGES = ("float32", "float16")
_TYPES: tuple[str, ...] = get_args(AttributeType)


def _attributes(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    declared: dict[str, str] = {}
    for entry in given:
        name, equals, kind = entry.rpartition("=")
        if not equals or not name or kind not in _TYPES:
            raise click.BadParameter(f"{entry!r}; expected NAME=TYPE with a type of {', '.join(_TYPES)}")
        declared[name] = kind
    return declared


attribute_option = click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=TYPE",
    callback=_attributes,
    help=f"One that filters and groups go by; may be given several times. Types: {', '.join(_TYPES)}.",
)


@click.command()
@collection_option
@model_option("Makes the vectors. Default: the server's default model.")
@click.option(
    "--dimension",
    type=click.IntRange(1),
    metavar="N",
    help="For vectors that you bring yourself, instead of a model's.",
)
@click.option("--metric", type=click.Choice(_METRICS), default="cosine", show_default=True)
@attribute_option
@click.option(
    "--storage",
    type=click.Choice(_STORAGES),
    default="float32",
    show_default=True,
    help="Of the vectors; float16 takes half the room.",
)
@server_options
def create(
    collection: str,
    model: str | None,
    dimension: int | None,
    metric: str,
    attributes: dict[str, str],
    storage: str,
    address: str,
    timeout_s: float,
) -> None:
    """Make an empty collection."""
    if model is not None and dimension is not None:
        raise click.UsageError("give either --model or --dimension; a model sets its own dimension")
    with connected(address, timeout_s) as client:
        made = client.create_collection(
            collection,
            model=model,
            metric=metric,
            dimension=dimension,
            attributes=cast("dict[str, AttributeType]", attributes),
            storage=storage,
        )
    click.echo(f"made collection {made.name!r}: dimension {made.dimension}, {made.metric}, {made.storage}")


@click.command()
@collection_option
@filter_option
@server_options
def count(collection: str, condition: Filter | None, address: str, timeout_s: float) -> None:
    """Print how many images a collection has."""
    with connected(address, timeout_s) as client:
        click.echo(client.count(collection, filter=condition))


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@collection_option
@filter_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@server_options
def delete(
    ids: tuple[str, ...],
    collection: str,
    condition: Filter | None,
    yes: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Delete images by their ids, or those that a filter keeps.

    Before it deletes by a filter it says how many there are, and asks. Ids that aren't there are named, and
    the exit status is then 1.
    """
    if bool(ids) == (condition is not None):
        raise click.UsageError("give either ids or --filter")
    absent: list[str] = []
    with connected(address, timeout_s) as client:
        if condition is None:
            there = {item.id for item in client.get(collection, list(dict.fromkeys(ids)))}
            absent = [name for name in dict.fromkeys(ids) if name not in there]
            deleted = client.delete(collection, ids)
        else:
            if not yes:
                found = client.count(collection, filter=condition)
                confirm(f"delete {found:,} of collection {collection!r}?", "deletes them")
            deleted = client.delete(collection, filter=condition)
    for name in absent[:_MAX_REPORTED]:
        report(name, NotFound(f"collection {collection!r} has no such id"))
    if len(absent) > _MAX_REPORTED:
        click.echo(f"… and {len(absent) - _MAX_REPORTED:,} more", err=True)
    click.echo(f"deleted {deleted:,} of collection {collection!r}")
    exit_status(len(absent))


def confirm(question: str, without: str) -> None:
    """Ask on the keyboard.

    Args:
        question: yes or no.
        without: what --yes does, for where nobody is there to answer.

    Raises:
        click.Abort: the answer is no.
        click.ClickException: nobody answered.
    """
    try:
        agreed = click.confirm(question)
    except click.Abort:  # Ctrl-C, or the end of what stands in for a keyboard
        if sys.stdin.isatty():
            raise
        click.echo()
        raise click.ClickException(f"nobody answered; --yes {without} without asking") from None
    if not agreed:
        raise click.Abort


@click.command()
@collection_option
@patient_server_options
def flush(collection: str, address: str, timeout_s: float) -> None:
    """Wait until searches are as fast as they get.

    What is indexed is on the disk and found without it.
    """
    with connected(address, timeout_s) as client:
        client.flush(collection, timeout=timeout_s)
    click.echo(f"collection {collection!r} is up to date")


@click.command()
@collection_option
@click.option("--name", metavar="NAME", help="Of the file. Default: the collection's and the time.")
@patient_server_options
def snapshot(collection: str, name: str | None, address: str, timeout_s: float) -> None:
    """Write a collection to a file in the server's snapshot folder."""
    with connected(address, timeout_s) as client:
        written = client.snapshot(collection, name, timeout=timeout_s)
    click.echo(f"wrote snapshot {written.name!r}, {written.size_bytes:,} bytes")


@click.command()
@click.argument("name")
@click.option(
    "--collection", metavar="NAME", help="Of the new one. Default: that of the one the snapshot was taken of."
)
@patient_server_options
def restore(name: str, collection: str | None, address: str, timeout_s: float) -> None:
    """Make a new collection of the snapshot NAME."""
    with connected(address, timeout_s) as client:
        try:
            made = client.restore(name, collection, timeout=timeout_s)
        except AlreadyExists as error:
            raise click.ClickException(f"{error.message}; give another name with --collection") from error
    click.echo(f"made collection {made.name!r} with {made.count:,} images of snapshot {name!r}")


@click.command()
@json_option
@server_options
def snapshots(as_json: bool, address: str, timeout_s: float) -> None:
    """List the snapshots that the server has."""
    with connected(address, timeout_s) as client:
        found = client.snapshots()
    if as_json:
        for each in found:
            print_json(asdict(each) | {"created": each.created.isoformat()})
    elif found:
        print_table(
            ("SNAPSHOT", "BYTES", "CREATED"),
            [(each.name, each.size_bytes, f"{each.created:%Y-%m-%d %H:%M:%S} UTC") for each in found],
        )
    else:
        click.echo("no snapshots yet; make one with `fovea index snapshot`")


@click.command()
@collection_option
@model_options("Makes the vectors. Default: the server's default model.")
@click.option(
    "--skip-broken",
    is_flag=True,
    help="Leave out images that can't be used, instead of ending with the first.",
)
@patient_server_options
def reembed(
    collection: str,
    model: str | None,
    version: str | None,
    skip_broken: bool,
    address: str,
    timeout_s: float,
) -> None:
    """Make a collection's vectors anew with another model.

    The server reads the images from where their attribute `uri` says, under the folders that its
    --image-root names. The collection answers as before until all is done; if it fails, it is as it was.
    """
    skipped: list[UpsertResult] = []
    last: ReembedProgress | None = None
    with connected(address, timeout_s) as client, progress() as bar:
        task = bar.add_task("re-embedding", total=None)
        steps = client.reembed(
            collection, model=model, version=version, skip_broken=skip_broken, timeout=timeout_s
        )
        for last in steps:
            skipped += last.skipped
            bar.update(task, completed=last.done, total=last.total)
    for result in skipped[:_MAX_REPORTED]:
        if result.error is not None:
            report(result.id, result.error)
    if len(skipped) > _MAX_REPORTED:
        click.echo(f"… and {len(skipped) - _MAX_REPORTED:,} more", err=True)
    if last is not None and last.collection is not None:
        made = last.collection
        left_out = f"; left out: {len(skipped):,}" if skipped else ""
        click.echo(
            f"collection {made.name!r} has {made.count:,} images of {made.model} version {made.version}"
            f"{left_out}"
        )
    exit_status(len(skipped))


COMMANDS: tuple[click.Command, ...] = (
    create,
    count,
    delete,
    flush,
    snapshot,
    restore,
    snapshots,
    reembed,
)
