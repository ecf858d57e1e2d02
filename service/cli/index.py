"""`fovea index`: fill, list and drop collections of images."""

from collections.abc import Sequence
from dataclasses import asdict

import click
from fovea import Collection, LoadingModel

from service.cli import upkeep
from service.cli.bulk.add import add
from service.cli.bulk.export import export
from service.cli.bulk.import_file import import_
from service.cli.connection import collection_option, connected, json_option, server_options
from service.cli.output import count_of_images, named_types, origin, print_json, print_table
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
        loading = client.loading()  # first: a model that is ready meanwhile is then in the collections
        found = client.collections()
    if as_json:
        for collection in found:
            print_json(asdict(collection))
    elif found:
        print_table(
            ("COLLECTION", "ITEMS", "DIMENSION", "METRIC", "MODEL", "ATTRIBUTES"),
            [
                (
                    each.name,
                    each.count,
                    each.dimension,
                    each.metric,
                    _origin(each, loading),
                    named_types(each.attributes),
                )
                for each in found
            ],
        )
    else:
        click.echo("no collections yet; make one with `fovea index add FOLDER`")


def _origin(collection: Collection, loading: Sequence[LoadingModel]) -> str:
    # Which of those that are loading it is, is known only when it is there.
    if collection.fingerprint and not collection.model and loading:
        return f"a model that isn't loaded; still loading: {', '.join(each.name for each in loading)}"
    return origin(collection)


@index.command()
@collection_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@server_options
def drop(collection: str, yes: bool, address: str, timeout_s: float) -> None:
    """Drop a collection and all that is in it."""
    with connected(address, timeout_s) as client:
        stored = client.count(collection)
        if not yes:
            upkeep.confirm(f"drop collection {collection!r} with {count_of_images(stored)}?", "drops it")
        client.drop_collection(collection)
    click.echo(f"dropped collection {collection!r} with {count_of_images(stored)}")


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
