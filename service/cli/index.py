"""`fovea index`: fill, list, count and drop collections of images."""

import os
import shlex
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import click
from fovea import AlreadyExists, AttributeValue, Client, Collection, Item, NotFound, UpsertResult
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from service.cli.connection import (
    collection_option,
    connected,
    exit_status,
    json_option,
    report,
    server_options,
)
from service.cli.image_files import SUFFIXES, image_files
from service.cli.loading import wait_for_collection, wait_for_model
from service.cli.output import print_json, print_table

_IMAGES_PER_REQUEST = 16
# The server embeds one request's images while the next one's files are read and sent.
_REQUESTS_IN_FLIGHT = 3


@click.group()
def index() -> None:
    """Collections of images that `fovea search` looks through."""


@index.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@collection_option
@click.option(
    "--model", metavar="NAME", help="Makes the vectors of a new collection. Default: the server's default."
)
@server_options
def add(folder: Path, collection: str, model: str | None, address: str, timeout_s: float) -> None:
    """Index every image file under FOLDER.

    The collection is made if it is missing. An image's id is its path inside FOLDER; indexing it again
    replaces it. Beside it are stored its `path` and, where images lie in class folders, their folder's
    name as `label`. Files that can't be used are listed at the end, and the exit status is then 1.
    """
    files = sorted(image_files(folder))
    if not files:
        suffixes = " ".join(sorted(SUFFIXES))
        raise click.ClickException(f"no image files under {folder}; looked for {suffixes}")
    failures: list[UpsertResult] = []
    with connected(address, timeout_s) as client:
        _ensure_collection(client, collection, model, timeout_s)
        with _progress() as progress:
            task = progress.add_task("indexing", total=len(files))
            for results in _upsert(client, collection, [_item(folder, file) for file in files]):
                failures += [result for result in results if result.error is not None]
                progress.advance(task, len(results))
        stored = client.count(collection)
    if failures:
        click.echo(f"{len(failures)} of {len(files)} files weren't indexed:", err=True)
    for failure in failures:
        if failure.error is not None:
            report(failure.id, failure.error)
    written = len(files) - len(failures)
    click.echo(f"indexed {_images(written)} of {folder}; collection {collection!r} has {_images(stored)}")
    if written:
        failed = {failure.id for failure in failures}
        example = next(file for file in files if _text(_relative(folder, file)) not in failed)
        suffix = "" if collection == "default" else f" --collection {collection}"
        click.echo(f"next: fovea search {shlex.quote(str(example))}{suffix}")
    exit_status(len(failures))


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
            [(each.name, each.count, each.dimension, each.metric, _origin(each)) for each in found],
        )
    else:
        click.echo("no collections yet; make one with `fovea index add FOLDER`")


@index.command()
@collection_option
@server_options
def count(collection: str, address: str, timeout_s: float) -> None:
    """Print how many images a collection has."""
    with connected(address, timeout_s) as client:
        click.echo(client.count(collection))


@index.command()
@collection_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@server_options
def drop(collection: str, yes: bool, address: str, timeout_s: float) -> None:
    """Drop a collection and all that is in it."""
    with connected(address, timeout_s) as client:
        stored = client.count(collection)
        if not yes:
            _confirm(f"drop collection {collection!r} with {_images(stored)}?")
        client.drop_collection(collection)
    click.echo(f"dropped collection {collection!r} with {_images(stored)}")


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


def _relative(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _item(folder: Path, file: Path) -> Item:
    attributes: dict[str, AttributeValue] = {"path": _text(str(file.absolute()))}
    if file.parent != folder:
        attributes["label"] = _text(file.parent.name)
    return Item(_text(_relative(folder, file)), image=file, attributes=attributes)


def _text(name: str) -> str:
    """A file's name as valid UTF-8, which file systems don't promise."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def _ensure_collection(client: Client, name: str, model: str | None, timeout_s: float) -> None:
    """Have it, and the model that makes its vectors.

    Raises:
        ClickException: it has vectors of another model, or its own is still loading after `timeout_s`.
    """
    try:
        wait_for_collection(client, name, timeout_s)
        there = client.collection(name)
    except NotFound:
        wait_for_model(client, model, timeout_s)
        try:
            client.create_collection(name, model=model)
        except AlreadyExists:  # somebody else's command was faster
            there = client.collection(name)
        else:
            return
    if model is not None and model != there.model:
        raise click.ClickException(
            f"collection {name!r} has vectors of {_origin(there)}, not of {model}; "
            f"index into another one with --collection"
        )


def _upsert(client: Client, collection: str, items: Sequence[Item]) -> Iterator[list[UpsertResult]]:
    under_way: deque[Future[list[UpsertResult]]] = deque()
    pool = ThreadPoolExecutor(_REQUESTS_IN_FLIGHT)
    try:
        for start in range(0, len(items), _IMAGES_PER_REQUEST):
            if len(under_way) == _REQUESTS_IN_FLIGHT:
                yield under_way.popleft().result()
            batch = items[start : start + _IMAGES_PER_REQUEST]
            under_way.append(pool.submit(client.upsert, collection, batch))
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} images/s" if speed else "", style="progress.data.speed")


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress("{task.description}", *columns, console=Console(stderr=True))


def _origin(collection: Collection) -> str:
    if collection.model:
        return f"{collection.model} version {collection.version}"
    return "a model that isn't loaded" if collection.fingerprint else "the callers' own"


def _images(number: int) -> str:
    return f"{number:,} image" + ("" if number == 1 else "s")


COMMANDS: tuple[click.Command, ...] = (index,)
