"""`fovea index`: fill, list and drop collections of images."""

import sys
from dataclasses import asdict

import click

from service.cli import upkeep
from service.cli.bulk.add import add
from service.cli.bulk.export import export
from service.cli.bulk.import_file import import_
from service.cli.connection import collection_option, connected, json_option, server_options
from service.cli.output import count_of_images, origin, print_json, print_table
from service.cli.quality.augment import augment_command
from service.cli.quality.duplicates import duplicates_command
from service.cli.quality.evaluate import evaluate_command


@click.group()
def index() -> None:
    """Collections of images that `fovea search` looks through."""


@index.command("list")
@json_option
@server_options
def list_(as_json: bool, address: str, timeout_s: float) -> None:
    """List the collections."""
    with connected(address, timeout_s) as client:
        found = client.collections()
    if as_json:
        for collection in found:
            print_json(asdict(collection))
    elif found:
        print_table(
            ("COLLECTION", "ITEMS", "DIMENSION", "METRIC", "MODEL"),
            [(each.name, each.count, each.dimension, each.metric, origin(each)) for each in found],
        )
    else:
        click.echo("no collections yet; make one with `fovea index add FOLDER`")


@index.command()
@collection_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@server_options
def drop(collection: str, yes: bool, address: str, timeout_s: float) -> None:
    """Drop a collection and all that is in it."""
    with connected(address, timeout_s) as client:
        stored = client.count(collection)
        if not yes:
            _confirm(f"drop collection {collection!r} with {count_of_images(stored)}?")
        client.drop_collection(collection)
    click.echo(f"dropped collection {collection!r} with {count_of_images(stored)}")


def _confirm(question: str) -> None:
    try:
        agreed = click.confirm(question)
    except click.Abort:  # Ctrl-C, or the end of what stands in for a keyboard
        if sys.stdin.isatty():
            raise
        click.echo()
        raise click.ClickException("nobody answered; --yes drops it without asking") from None
    if not agreed:
        raise click.Abort


for command in (
    add,
    export,
    import_,
    augment_command,
    duplicates_command,
    evaluate_command,
    *upkeep.COMMANDS,
):
    index.add_command(command)

COMMANDS: tuple[click.Command, ...] = (index,)
