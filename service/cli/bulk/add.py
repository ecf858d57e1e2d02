"""`fovea index add`: a folder, a table or shards into a collection."""

import shlex
from collections import Counter
from pathlib import Path

import click
from fovea import FoveaError

from service.cli.bulk.broken import BrokenList
from service.cli.bulk.engine import Engine, engine_options
from service.cli.bulk.entry import Entry
from service.cli.bulk.look import Rules
from service.cli.bulk.progress import progress
from service.cli.bulk.source import Prefixed, open_source
from service.cli.bulk.target import ready_collection
from service.cli.connection import collection_option, connected, exit_status, model_option, server_options
from service.cli.output import count_of_images
from service.cli.upkeep import attribute_option
from service.errors import shorten
from service.retrieval.schema import is_text


def _prefix(_: click.Context, __: click.Parameter, given: str) -> str:
    if not is_text(given):
        raise click.BadParameter(f"{shorten(given)}; expected UTF-8")
    return given


@click.command()
@click.argument(
    "source", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="SOURCE..."
)
@collection_option
@model_option("Makes the vectors of a new collection. Default: the server's default.")
@attribute_option
@click.option(
    "--broken",
    "broken_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every file that can't be used to FILE: JSON lines of id, code and message.",
)
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    callback=_prefix,
    help="Begin every id with TEXT, for instance cam2/.",
)
@click.option("--replace", is_flag=True, help="Write over items of the same id that other files made.")
@click.option("--checksum", is_flag=True, help="Read every file, instead of trusting its size and time.")
@engine_options
@server_options
def add(
    source: tuple[Path, ...],
    collection: str,
    model: str | None,
    attributes: dict[str, str],
    broken_file: Path | None,
    prefix: str,
    replace: bool,
    checksum: bool,
    engine: Engine,
    address: str,
    timeout_s: float,
) -> None:
    """Index the images of SOURCE.

    SOURCE is a folder; a table, .csv or .parquet, with a column path; or WebDataset shards, .tar. The
    collection is made if it is missing. An image's id is its path inside the folder, or beside the table, or
    in the shard; a table's column id says otherwise. An image whose id another file's item has is listed
    and left out, unless a --prefix tells them apart. Beside it are stored its `path`, its `uri` where it is a
    file, its `label` where it lies in a class folder or the source has one, and a table's other columns.

    The same command again goes on where it was stopped: what is there and unchanged is passed over, by the
    size and time of its file. Files with the same content are embedded once. Files that can't be used are
    listed at the end, and the exit status is then 1.
    """
    images = Prefixed(open_source(source), prefix)
    total = images.count()
    if not total and next(images.entries(), None) is None:
        raise click.ClickException(images.empty)
    done: Counter[str] = Counter()
    with connected(address, timeout_s) as client, BrokenList(broken_file) as broken:
        there = ready_collection(client, collection, model, images, attributes, engine.manifest, timeout_s)
        rules = Rules(checksum, replace)
        with engine.indexing(client, there, timeout_s, rules) as indexing, progress() as bar:
            task = bar.add_task("indexing", total=total)
            try:
                for step in indexing.run(images.entries()):
                    done.update(embedded=step.embedded, copied=step.copied, unchanged=step.unchanged)
                    for each in step.broken:
                        broken.add(each)
                    bar.advance(task, step.images)
            except (FoveaError, KeyboardInterrupt):
                bar.console.print(
                    f"stopped; the same command again goes on from here: {_there(done.total(), total)} in "
                    f"collection {collection!r}",
                    highlight=False, markup=False, soft_wrap=True,
                )  # fmt: skip
                raise
        stored = client.count(collection)
    broken.show(done.total() + broken.count)
    click.echo(_summary(images.name, done, collection, stored))
    if not stored:
        click.echo(
            f"to begin anew with other attributes or another model: fovea index drop{_named(collection)}"
        )
    if done.total() and (example := broken.first_other(images.entries())):
        click.echo(_example(example, collection))
    exit_status(broken.count)


def _there(images: int, total: int) -> str:
    """How far it came; what was on its way may be there, too."""
    return f"at least {images:,} of {count_of_images(total)} {'is' if images == 1 else 'are'}"


def _summary(name: str, done: Counter[str], collection: str, stored: int) -> str:
    text = f"indexed {count_of_images(done['embedded'] + done['copied'])} of {name}"
    if done["copied"]:
        text += f", {done['copied']:,} of them with the vector of the same content"
    if done["unchanged"]:
        text += f"; {done['unchanged']:,} were there already"
    return f"{text}; collection {collection!r} has {count_of_images(stored)}"


def _example(entry: Entry, collection: str) -> str:
    # A name that is no UTF-8 can't be printed.
    if isinstance(entry.place, Path) and is_text(str(entry.place)):
        photo = shlex.quote(str(entry.place))
    else:
        photo = f"--id {shlex.quote(entry.id)}"
    return f"next: fovea search {photo}{_named(collection)}"


def _named(collection: str) -> str:
    return "" if collection == "default" else f" --collection {collection}"
